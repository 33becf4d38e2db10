"""From a name to the files of a checkpoint, and from the files to checked weights."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from schemas.labels import EMOTIONS
from schemas.signals import ModelInfo
from worker.inference import hub
from worker.inference.architecture import check_state, detect_head_set, heads_are_known, infer_shape
from worker.inference.config import (
    DEFAULT_MAX_LENGTH,
    EncoderShape,
    HeadSet,
    KbertConfig,
    check_labels,
    parse_kbert,
)
from worker.inference.errors import CheckpointError, first_line
from worker.inference.json_files import read_object, unreadable
from worker.inference.weights import digest, find_weights, read_weights

if TYPE_CHECKING:
    import torch

_DIGEST_DIGITS = 12
_ENCODER_KEYS = (
    "model_type",
    "num_attention_heads",
    "hidden_act",
    "layer_norm_eps",
    "position_embedding_type",
    "is_decoder",
)
_WEIGHT_SUFFIXES = (".pt", ".bin", ".safetensors")


@dataclass(frozen=True, slots=True)
class CheckpointFiles:
    """Where the parts of a checkpoint lie on this machine."""

    name: str
    """Directory or file name, or Hub id."""
    directory: Path
    """Where config and tokeniser are looked for."""
    weights: tuple[Path, ...]
    commit: str | None
    """Hub commit; None for local files."""
    offline: bool
    """Whether a tokeniser that the checkpoint only names may not be fetched."""
    pinned: bool = True
    """False where the newest commit of the Hub was taken."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Weights and configuration that fit together."""

    info: ModelInfo
    head_set: HeadSet
    shape: EncoderShape
    kbert: KbertConfig
    max_length: int
    """Tokens, special tokens included."""
    state: dict[str, "torch.Tensor"]
    """float32, names as in :func:`worker.inference.architecture.expected_sizes`."""
    tokeniser_directory: Path
    files: CheckpointFiles
    unpinned: Mapping[str, str]
    """Hub ids of which the newest commit was taken, and the setting that pins each."""


def resolve(ref: str, *, revision: str | None = None, offline: bool = False) -> CheckpointFiles:
    """Find a checkpoint: a directory, one weight file, or a Hub id (``owner/name[@revision]``).

    Args:
        ref: What the setting ``model.ref`` holds. What exists locally is taken before the Hub.
        revision: Hub branch, tag or commit, where ``ref`` has none; pin the commit in production.
        offline: Use the local cache only.

    Raises:
        CheckpointError: Nothing usable is found there.
    """
    try:
        return _resolve(ref, revision, offline=offline)
    except (OSError, RuntimeError) as error:  # the latter where ~ names nobody
        why = getattr(error, "strerror", None) or first_line(error)
        raise CheckpointError(
            f"Setting `model.ref`: {ref} cannot be looked into ({why}); correct it, or the rights on it."
        ) from error


def _resolve(ref: str, revision: str | None, *, offline: bool) -> CheckpointFiles:
    path = Path(ref).expanduser()
    if path.is_dir():
        name = path.resolve().name
        return CheckpointFiles(name, path, find_weights(path, str(path)), None, offline)
    if path.is_file():
        if path.suffix not in _WEIGHT_SUFFIXES:
            raise CheckpointError(
                f"Setting `model.ref`: {ref} is no weight file ({', '.join(_WEIGHT_SUFFIXES)}); "
                "give its directory, or a Hub id."
            )
        return CheckpointFiles(path.stem, path.parent, (path,), None, offline)
    on_hub = hub.split_ref(ref)
    if on_hub is None:
        raise CheckpointError(
            f"Setting `model.ref`: {ref} is neither a directory nor a weight file here, nor a Hub id "
            "(owner/name or owner/name@revision)."
        )
    name, after_at = on_hub
    asked = after_at or revision
    directory, commit = hub.fetch(name, revision=asked, offline=offline)
    weights = find_weights(directory, name)
    return CheckpointFiles(name, directory, weights, commit, offline, pinned=asked is not None)


def load_checkpoint(files: CheckpointFiles, *, tokeniser_revision: str | None = None) -> Checkpoint:
    """Read, check and complete a checkpoint.

    Args:
        files: What :func:`resolve` found.
        tokeniser_revision: Hub branch, tag or commit of the encoder that a ``.pt`` names, whose tokeniser and
            config are taken where none lie beside the weights.

    Raises:
        CheckpointError: One sentence naming what is missing, unexpected, damaged or of another size.
    """
    folders = dict.fromkeys((files.weights[0].parent, files.directory))
    config = next(filter(_is_file, (folder / hub.CONFIG for folder in folders)), files.directory / hub.CONFIG)
    raw = _read_config(config)
    state, extra = read_weights(files.weights)
    origin = files.weights[0]
    head_set = detect_head_set(state, origin)
    told = dict(raw.get("kbert") or {})
    if "emo_threshold" not in told and extra.get("emo_threshold") is not None:
        kbert = parse_kbert(told | {"emo_threshold": _in_order(extra["emo_threshold"])}, origin)
    else:
        kbert = parse_kbert(told, config)
    if kbert.head_set not in (None, head_set):
        raise CheckpointError(
            f"{origin}: holds the heads of {head_set!r}, and `kbert.head_set` in config.json says "
            f"{kbert.head_set!r}; correct the config."
        )
    shape = infer_shape(state, raw or _encoder_config(files, extra, state, tokeniser_revision), origin)
    check_state(state, shape, head_set, origin)
    if head_set == "traffic":
        check_labels(raw, kbert, config)
    tokeniser, lender = _tokeniser_directory(files, extra, tokeniser_revision)
    max_length = _max_length(kbert, head_set, shape, config)
    unpinned = {} if files.pinned else {files.name: "model.revision"}
    if lender is not None and tokeniser_revision is None:
        unpinned[lender] = "model.tokeniser_revision"
    return Checkpoint(
        info=ModelInfo(
            name=kbert.name or files.name,
            revision=files.commit or _digest(files, kbert, shape, max_length, tokeniser),
        ),
        head_set=head_set,
        shape=shape,
        kbert=kbert,
        max_length=max_length,
        state=state,
        tokeniser_directory=tokeniser,
        files=files,
        unpinned=unpinned,
    )


def _read_config(file: Path) -> dict[str, Any]:
    """``auto_map`` and whatever else names code is read and ignored. An LQ-KBERT ``.pt`` has no config."""
    raw = read_object(file)
    if not isinstance(raw.get("kbert") or {}, dict):
        raise CheckpointError(f"{file}: a JSON object is expected, and `kbert` in it to be one too.")
    return raw


def _encoder_config(
    files: CheckpointFiles, extra: dict[str, Any], state: dict[str, "torch.Tensor"], revision: str | None
) -> dict[str, Any]:
    """What the encoder that an LQ-KBERT ``.pt`` names says of itself, without the sizes that tensors tell.

    The Hub is asked only where the sizes leave the heads open.
    """
    named = extra.get("model_name")
    if not isinstance(named, str) or not named:
        return {}
    directory = _named_directory(named)
    if directory is None:
        if not hub.HUB_ID.fullmatch(named) or heads_are_known(state):
            return {}
        try:
            directory = hub.fetch_tokeniser(named, revision=revision, offline=files.offline)
        except CheckpointError:
            if revision is not None:
                raise
            return {}  # infer_shape names what is missing, and the mend
    raw = _read_config(directory / hub.CONFIG)
    return {key: raw[key] for key in _ENCODER_KEYS if key in raw}


def _in_order(threshold: Any) -> Any:
    """Thresholds given by the emotions' names, in the order of the logits."""
    if isinstance(threshold, dict) and threshold.keys() == set(EMOTIONS):
        return [threshold[name] for name in EMOTIONS]
    return threshold


def _max_length(kbert: KbertConfig, head_set: HeadSet, shape: EncoderShape, config: Path) -> int:
    if kbert.max_length is None:
        return min(DEFAULT_MAX_LENGTH[head_set], shape.positions)
    if kbert.max_length > shape.positions:
        raise CheckpointError(
            f"{config}: `kbert.max_length` is {kbert.max_length}, "
            f"and the encoder has {shape.positions} positions."
        )
    return kbert.max_length


def _tokeniser_directory(
    files: CheckpointFiles, extra: dict[str, Any], revision: str | None
) -> tuple[Path, str | None]:
    """Where the tokeniser lies, and the Hub id of the encoder that lends it; None where it is its own."""
    for directory in dict.fromkeys((files.weights[0].parent, files.directory)):
        if any(_is_file(directory / name) for name in hub.VOCABULARY_FILES):
            return directory, None
    named = extra.get("model_name")
    if not isinstance(named, str) or not named:
        raise CheckpointError(
            f"{files.directory}: holds no tokeniser and names none; put tokenizer.json beside the weights."
        )
    local = _named_directory(named)
    if local is not None:
        return local, None
    if not hub.HUB_ID.fullmatch(named):
        raise CheckpointError(
            f"{files.directory}: holds no tokeniser, and its `model_name` {named!r} is neither a directory "
            "nor a Hub id; put tokenizer.json beside the weights."
        )
    try:
        return hub.fetch_tokeniser(named, revision=revision, offline=files.offline), named
    except CheckpointError as error:
        raise CheckpointError(
            f"{files.directory}: holds no tokeniser, and that of {named}, which it names, cannot be had: "
            f"put tokenizer.json beside the weights. ({error})"
        ) from error


def _named_directory(named: str) -> Path | None:
    """The directory that a ``.pt`` names, where there is such a one here."""
    try:
        directory = Path(named).expanduser()
        return directory if directory.is_dir() else None
    except (OSError, RuntimeError):  # too long for a path, or ~ names nobody
        return None


def _is_file(file: Path) -> bool:
    try:
        return file.is_file()
    except OSError as error:
        raise unreadable(file, error) from error


def _digest(
    files: CheckpointFiles, kbert: KbertConfig, shape: EncoderShape, max_length: int, tokeniser: Path
) -> str:
    """Of all that the answers depend on: weights, what the configuration sets, and the tokeniser."""
    told = {
        "kbert": kbert.model_dump(mode="json", exclude={"name", "head_set", "max_length"}),
        "shape": asdict(shape),
        "max_length": max_length,
    }
    total = hashlib.sha256(digest(files.weights).encode())
    total.update(json.dumps(told, sort_keys=True).encode())
    for name in hub.TOKENISER_FILES:
        if _is_file(tokeniser / name):
            total.update(f"\n{name} {digest((tokeniser / name,))}".encode())
    return total.hexdigest()[:_DIGEST_DIGITS]
