"""From weight files to one state dict in float32, without running anything that they contain."""

import hashlib
import json
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from worker.inference.errors import CheckpointError, WeightsMissing, first_line

if TYPE_CHECKING:
    import torch

SAFETENSORS: Final = "model.safetensors"
SAFETENSORS_INDEX: Final = "model.safetensors.index.json"
PICKLED: Final = "pytorch_model.bin"
PICKLED_INDEX: Final = "pytorch_model.bin.index.json"

_PREFIXES: Final = ("module.", "model.", "_orig_mod.")
_BESIDE: Final = ("model_name", "emo_threshold")
_SCALE: Final = ".scale"
_FIRST_BYTES: Final = (b"PK", b"\x80")
"""Of what torch.save writes: a zip archive, or a pickle before torch 1.6."""
_BUFFERS: Final = (".position_ids", ".token_type_ids")
_RENAMED: Final = {"LayerNorm.gamma": "LayerNorm.weight", "LayerNorm.beta": "LayerNorm.bias"}


def choose_weights(names: set[str], origin: str) -> str:
    """Pick one weight file (or index) among the file names of a checkpoint, safetensors first.

    Args:
        names: POSIX paths relative to the checkpoint.
        origin: How the checkpoint is called in the message.

    Raises:
        WeightsMissing: None is there.
        CheckpointError: There are several ``.pt`` files and nothing tells which.
    """
    for name in (SAFETENSORS, SAFETENSORS_INDEX, PICKLED, PICKLED_INDEX):
        if name in names:
            return name
    # LQ-KBERT publishes model/lq-kbert-base.pt, one folder down.
    for depth in (0, 1):
        found = sorted(name for name in names if name.endswith(".pt") and name.count("/") == depth)
        if len(found) == 1:
            return found[0]
        if found:
            raise CheckpointError(
                f"{origin}: holds several .pt files ({', '.join(found)}); set `model.ref` to the path of one "
                "of them, downloaded first if they are on the Hub."
            )
    raise WeightsMissing(
        f"{origin}: holds no weights: expected {SAFETENSORS} (or its index), {PICKLED} or one .pt file."
    )


def find_weights(directory: Path, origin: str) -> tuple[Path, ...]:
    """The weight files of a checkpoint: one, or those that its index names.

    Args:
        directory: Where they lie, or one folder down.
        origin: How the checkpoint is called in a message.

    Raises:
        WeightsMissing: None is there, or one that the index names is absent.
        CheckpointError: Nothing tells which to take, or the index is damaged.
        OSError: The directory may not be read.
    """
    names = {file.name for file in directory.iterdir() if file.is_file()}
    names |= {file.relative_to(directory).as_posix() for file in directory.glob("*/*.pt") if file.is_file()}
    chosen = directory / choose_weights(names, origin)
    return _shards(chosen) if chosen.name in (SAFETENSORS_INDEX, PICKLED_INDEX) else (chosen,)


def _shards(index: Path) -> tuple[Path, ...]:
    """Files that an index names, which must lie beside it."""
    try:
        weight_map = json.loads(index.read_text("utf-8"))["weight_map"]
        names = sorted(set(weight_map.values()), key=str)
    except (OSError, ValueError, RecursionError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{index}: is not a weight index; fetch the checkpoint again.") from error
    if not names:
        raise CheckpointError(f"{index}: names no files; fetch the checkpoint again.")
    for name in names:
        if not isinstance(name, str) or Path(name).name != name:
            raise CheckpointError(f"{index}: names {name!r}, which does not lie beside the index.")
        if not (index.parent / name).is_file():
            raise WeightsMissing(f"{index}: names {name}, which is missing; fetch the checkpoint again.")
    return tuple(index.parent / name for name in names)


def read_weights(files: tuple[Path, ...]) -> tuple[dict[str, "torch.Tensor"], dict[str, Any]]:
    """Read all files into one state dict.

    Returns:
        The state dict (names without ``module.`` or ``model.``, all float32, int8 dequantised), and what
        an LQ-KBERT ``.pt`` says beside it (``model_name``, ``emo_threshold``).

    Raises:
        CheckpointError: A file is damaged, holds more than tensors of floats or scaled int8, or repeats a
            name.
    """
    state: dict[str, torch.Tensor] = {}
    extra: dict[str, Any] = {}
    for file in files:
        tensors, beside = _read_one(file)
        extra.update(beside)
        for name in list(tensors):
            plain = _plain_name(name)
            if plain in state:
                raise CheckpointError(f"{file}: holds {plain} twice; remove one of them.")
            state[plain] = tensors.pop(name)
    return _to_float(state, files[0]), extra


def digest(files: tuple[Path, ...]) -> str:
    """SHA-256 over the files in order of their names, as hex."""
    total = hashlib.sha256()
    for file in sorted(files, key=lambda path: path.name):
        with file.open("rb") as stream:
            while block := stream.read(1 << 20):
                total.update(block)
    return total.hexdigest()


def _read_one(file: Path) -> tuple[dict[str, "torch.Tensor"], dict[str, Any]]:
    if file.suffix == ".safetensors":
        from safetensors import safe_open

        try:
            with safe_open(file, framework="pt") as stored:
                # Copied out of the mapped file: whoever overwrites it in place would change the answers.
                return {name: stored.get_tensor(name).clone() for name in stored.keys()}, {}  # noqa: SIM118
        except Exception as error:
            raise CheckpointError(f"{file}: cannot be read ({first_line(error)}); fetch it again.") from error
    return _unwrap(_unpickle(file), file)


def _unpickle(file: Path) -> Any:
    """Load tensors and plain values only: a pickle that names any other function is refused unrun."""
    import torch

    from worker.inference.numpy_pickles import STAND_INS

    try:
        _refuse_other_kinds(file)
        with torch.serialization.safe_globals(STAND_INS):
            return torch.load(file, map_location="cpu", weights_only=True)
    except CheckpointError:
        raise
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{file}: holds more than weights, and code from a checkpoint never runs; "
            "save its state_dict as safetensors."
        ) from error
    except Exception as error:
        raise CheckpointError(f"{file}: cannot be read ({first_line(error)}); fetch it again.") from error


def _refuse_other_kinds(file: Path) -> None:
    with file.open("rb") as stream:
        if not stream.read(2).startswith(_FIRST_BYTES):
            raise CheckpointError(f"{file}: is no weight file (a Git LFS pointer?); fetch it again.")


def _unwrap(loaded: Any, file: Path) -> tuple[dict[str, "torch.Tensor"], dict[str, Any]]:
    import torch

    extra: dict[str, Any] = {}
    if isinstance(loaded, Mapping) and isinstance(loaded.get("state_dict"), Mapping):
        extra = {key: _as_plain(loaded[key], key, file) for key in _BESIDE if key in loaded}
        loaded = loaded["state_dict"]
    if not isinstance(loaded, Mapping) or not all(isinstance(name, str) for name in loaded):
        raise CheckpointError(f"{file}: holds no state_dict; save `model.state_dict()`.")
    other = [name for name, value in loaded.items() if not isinstance(value, torch.Tensor)]
    if other:
        raise CheckpointError(f"{file}: {other[0]} is no tensor; save `model.state_dict()`.")
    return dict(loaded), extra


def _as_plain(value: Any, key: str, file: Path) -> Any:
    """Numbers out of tensors and arrays."""
    try:
        return value.tolist() if hasattr(value, "tolist") else value
    except Exception as error:
        raise CheckpointError(f"{file}: its `{key}` cannot be read ({first_line(error)}).") from error


def _plain_name(name: str) -> str:
    while name.startswith(_PREFIXES):
        name = name.split(".", 1)[1]
    for old, new in _RENAMED.items():
        if name.endswith(old):
            return name.removesuffix(old) + new
    return name


def _to_float(state: dict[str, "torch.Tensor"], origin: Path) -> dict[str, "torch.Tensor"]:
    """Takes each tensor out of ``state``, so that a model in half precision is not held twice."""
    import torch

    floats: dict[str, torch.Tensor] = {}
    scales = {name for name in state if name.endswith(_SCALE) and name.removesuffix(_SCALE) in state}
    for name in [name for name in state if name not in scales]:
        tensor, scale = state.pop(name), state.pop(name + _SCALE, None)
        if not all(part is None or _is_plain(part) for part in (tensor, scale)):
            raise CheckpointError(f"{origin}: {name} is no plain tensor; save it as one of floats.")
        if tensor.dtype == torch.int8:
            tensor = _dequantise(name, tensor, scale, origin)
        elif scale is not None:
            raise CheckpointError(f"{origin}: {name}{_SCALE} scales a tensor that is not int8.")
        elif not tensor.is_floating_point() and not f".{name}".endswith(_BUFFERS):
            kind = str(tensor.dtype).removeprefix("torch.")
            raise CheckpointError(f"{origin}: {name} is {kind}; floats are needed, or int8 with a scale.")
        tensor = tensor.to(torch.float32)
        # One NaN or infinity makes the sum one; three times as fast as asking each number.
        if not bool(torch.isfinite(tensor.sum(dtype=torch.float64))):
            raise CheckpointError(f"{origin}: {name} holds NaN or infinity; the training has diverged.")
        floats[name] = tensor
    return floats


def _is_plain(tensor: "torch.Tensor") -> bool:
    import torch

    return tensor.layout == torch.strided and not (tensor.is_meta or tensor.is_quantized)


def _dequantise(
    name: str, weight: "torch.Tensor", scale: "torch.Tensor | None", origin: Path
) -> "torch.Tensor":
    """``W[i, j] = q[i, j] * scale[i]``."""
    import torch

    if scale is None:
        raise CheckpointError(f"{origin}: {name} is int8 and {name}{_SCALE} is missing.")
    if weight.ndim != 2 or tuple(scale.shape) != (weight.shape[0],):
        raise CheckpointError(
            f"{origin}: {name}{_SCALE} is {list(scale.shape)}, and {name} is {list(weight.shape)}: "
            "one number a row is needed."
        )
    return weight.to(torch.float32).mul_(scale.to(torch.float32)[:, None])
