"""What a run is made from, so that a state of another run is not taken up in its place."""

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import torch

from worker.errors import ConfigurationError, KbertError

_MADE_FROM: Final = "made_from"
_DIGITS: Final = 16
MODEL: Final = ("config.json", "tokenizer.json", "*.safetensors", "*.bin", "*.pt")
"""Files of an encoder or of a finished model: what it is, its vocabulary, its weights."""
PUBLIC_SETS: Final = ("*.gz",)


class StateMismatchError(KbertError, ValueError):
    """The folder holds the state of a run with other settings."""


def digest(parts: Iterable[str | bytes]) -> str:
    """A short hash of texts or bytes, in their order."""
    total = hashlib.sha256()
    for part in parts:
        raw = part.encode("utf-8", "surrogatepass") if isinstance(part, str) else part
        total.update(len(raw).to_bytes(8, "little"))
        total.update(raw)
    return total.hexdigest()[:_DIGITS]


def digest_of_files(paths: Iterable[Path]) -> str:
    """A short hash of what files hold; a missing one counts as empty."""
    return digest(path.read_bytes() if path.is_file() else b"" for path in paths)


def digest_of_folder(folder: Path | None, patterns: Iterable[str]) -> str:
    """A short hash of what the files of a folder hold whose names fit; a missing folder counts as empty."""
    found = {path for pattern in patterns for path in folder.glob(pattern)} if folder is not None else ()
    return digest_of_files(sorted(found))


def check(path: Path, stored: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    """Raise StateMismatchError, which names what differs, where a state is of another run."""
    other = sorted(key for key in stored.keys() | wanted.keys() if stored.get(key) != wanted.get(key))
    if other:
        raise StateMismatchError(
            f"{path} was written with other settings ({', '.join(other)}); remove it or choose another folder"
        )


@contextmanager
def writing(out: Path) -> Iterator[None]:
    """Where something is written into ``--out``: ConfigurationError where it cannot be."""
    from safetensors import SafetensorError

    try:
        yield
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ConfigurationError(
            f"--out {out}: cannot be written ({reason}): free space or choose another folder"
        ) from error


def store(path: Path, content: Mapping[str, Any]) -> None:
    """Write tensors and plain values, whole or not at all. Raises ConfigurationError where it cannot."""
    partial = path.with_suffix(".part")
    with writing(path.parent):
        try:
            try:
                torch.save(dict(content), partial)
            except RuntimeError as error:  # of torch's own writer, on a full disk
                raise OSError(str(error).partition("\n")[0]) from error
            partial.replace(path)
        except OSError:
            partial.unlink(missing_ok=True)
            raise


def save_stage(path: Path, model: torch.nn.Module, made_from: Mapping[str, Any]) -> None:
    """Write the weights of a finished stage, whole or not at all; its state to resume from goes.

    Raises ConfigurationError where it cannot be written.
    """
    store(path, {_MADE_FROM: dict(made_from), "model": model.state_dict()})
    path.with_suffix(".state.pt").unlink(missing_ok=True)


def check_out(out: Path, **taken: Path | None) -> None:
    """Raise ConfigurationError where ``out`` or the model in it is a folder that the run takes from.

    ``taken`` names these folders by their options.
    """
    written = {out.resolve(), (out / "model").resolve()}
    for option, folder in taken.items():
        if folder is not None and folder.resolve() in written:
            raise ConfigurationError(
                f"--out {out} would write over --{option} {folder}: choose another folder"
            )


def load_stage(path: Path, model: torch.nn.Module, made_from: Mapping[str, Any] | None) -> None:
    """Fill a model with the weights of a finished stage; ``made_from`` None takes those of any run.

    Raises StateMismatchError where they are of another run, or of a model of other sizes.
    """
    stored = torch.load(path, map_location="cpu", weights_only=True)
    if made_from is not None:
        check(path, stored.get(_MADE_FROM, {}), made_from)
    try:
        model.load_state_dict(stored["model"] if _MADE_FROM in stored else stored)
    except RuntimeError as error:
        raise StateMismatchError(
            f"{path} holds weights of another size: --base, --layers and --max-length must be as in its run"
        ) from error
