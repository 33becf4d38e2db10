"""Checkpoints from the Hugging Face Hub: pinned, cached, checked, and never a line of their code."""

import hashlib
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any, Final, NamedTuple

from worker.inference.errors import CheckpointError, WeightsMissing
from worker.inference.weights import PICKLED_INDEX, SAFETENSORS_INDEX, choose_weights, find_weights

HUB_ID: Final = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
_PINNED_ID: Final = re.compile(rf"({HUB_ID.pattern})(?:@(\S+))?")

VOCABULARY_FILES: Final = (
    "tokenizer.json",
    "vocab.txt",
    "sentencepiece.bpe.model",
    "spiece.model",
    "tokenizer.model",
)
"""Any one of these makes a tokeniser."""
TOKENISER_FILES: Final = (
    *VOCABULARY_FILES,
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
)
CONFIG: Final = "config.json"
_TEXT_FILES: Final = (CONFIG, "README.md", *TOKENISER_FILES)
_MEND: Final = "fetch it once with the Hub in reach, or set `model.ref` to a local directory"
_ABSENT: Final = f"is not in the local cache: {_MEND}"
_PARTLY: Final = f"is only partly in the local cache: {_MEND}"
_SERVER_ERRORS: Final = 500
_TOO_MANY: Final = 429
_SHA1: Final = re.compile(r"[0-9a-f]{40}")
_SHA256: Final = re.compile(r"[0-9a-f]{64}")
_PATIENCE: Final = 10.0
"""Seconds; by itself huggingface_hub waits for ever, and a Hub that never answered held up a cached model."""


class _Wanted(NamedTuple):
    """A repository at a revision (None: the main branch), and what sets that revision."""

    repo_id: str
    revision: str | None
    pin: str

    def __str__(self) -> str:
        return self.repo_id if self.revision is None else f"{self.repo_id} at revision {self.revision}"


def split_ref(ref: str) -> tuple[str, str | None] | None:
    """Repository and revision of ``owner/name`` or ``owner/name@revision``; None where it is no Hub id."""
    match = _PINNED_ID.fullmatch(ref)
    return (match[1], match[2]) if match else None


def fetch(repo_id: str, *, revision: str | None, offline: bool) -> tuple[Path, str]:
    """Bring weights, tokeniser and config of a repository into the Hub cache.

    Of several weight formats only one is downloaded. A commit that is wholly in the cache is taken from there
    unasked; so is what else the cache holds, when the Hub is out of reach. ``HF_TOKEN``, ``HF_HOME``,
    ``HF_ENDPOINT`` and ``HF_HUB_OFFLINE`` work as huggingface_hub documents.

    Returns:
        The snapshot directory and its commit.

    Raises:
        CheckpointError: Not found, not reachable, not allowed, only partly cached, or damaged.
    """
    wanted = _Wanted(repo_id, revision, "`model.revision`, or what follows the @")
    names = None if _is_complete(wanted, weights=True) else _names(wanted, offline=offline)
    if names is None:
        directory = _snapshot(wanted, [CONFIG, *TOKENISER_FILES], local=True)
        try:
            find_weights(directory, repo_id)
        except WeightsMissing as error:
            raise CheckpointError(f"Setting `model.ref`: {wanted} {_PARTLY}.") from error
    else:
        weights = _weight_files(names, repo_id)
        directory = _snapshot(wanted, _texts(PurePosixPath(weights[0]).parent) + weights, local=False)
    _verify(directory.rglob("*"))
    return directory, directory.name


def fetch_tokeniser(repo_id: str, *, revision: str | None, offline: bool) -> Path:
    """Bring only tokeniser and config of a repository, for a ``.pt`` file that names its encoder.

    Raises:
        CheckpointError: As for :func:`fetch`.
    """
    wanted = _Wanted(repo_id, revision, "`model.tokeniser_revision`")
    local = _is_complete(wanted, weights=False) or _names(wanted, offline=offline) is None
    directory = _snapshot(wanted, [CONFIG, *TOKENISER_FILES], local=local)
    _verify(directory / name for name in (CONFIG, *TOKENISER_FILES))
    return directory


def _texts(folder: PurePosixPath) -> list[str]:
    """Config and tokeniser of a repository, and those beside weights in a folder of it."""
    return [*_TEXT_FILES, *(str(folder / name) for name in _TEXT_FILES)]


def _is_complete(wanted: _Wanted, *, weights: bool) -> bool:
    """Whether the cache holds config, vocabulary and, where asked for, weights of a commit."""
    if wanted.revision is None or not _SHA1.fullmatch(wanted.revision):
        return False
    directory = _cached(wanted, [CONFIG, *TOKENISER_FILES])
    if directory is None:
        return False
    folder = PurePosixPath()
    if weights:
        try:
            parent = find_weights(directory, wanted.repo_id)[0].parent
        except CheckpointError:
            return False
        folder = PurePosixPath(parent.relative_to(directory).as_posix())
        if _cached(wanted, _texts(folder)) is None:
            return False
    places = (directory / folder, directory)
    return all(
        any((place / name).is_file() for place in places for name in names)
        for names in ((CONFIG,), VOCABULARY_FILES)
    )


def _names(wanted: _Wanted, *, offline: bool) -> set[str] | None:
    """The files of a repository; None where what the cache holds has to do."""
    from huggingface_hub import HfApi

    names: set[str] | None = None
    if not _is_offline(offline):
        with _one_sentence(wanted, offline=False), _cache_when_unreachable(wanted):
            info = HfApi().model_info(wanted.repo_id, revision=wanted.revision, timeout=_PATIENCE)
            names = {sibling.rfilename for sibling in info.siblings or ()}
    return names


def _snapshot(wanted: _Wanted, files: list[str], *, local: bool) -> Path:
    from huggingface_hub import snapshot_download

    with _one_sentence(wanted, offline=local):
        return Path(
            snapshot_download(
                wanted.repo_id, revision=wanted.revision, allow_patterns=files, local_files_only=local
            )
        )


def _is_offline(asked: bool) -> bool:
    from huggingface_hub import constants

    return asked or bool(constants.HF_HUB_OFFLINE)


def _weight_files(names: set[str], repo_id: str) -> list[str]:
    weights = choose_weights(names, repo_id)
    if weights not in (SAFETENSORS_INDEX, PICKLED_INDEX):
        return [weights]
    suffix = ".safetensors" if weights == SAFETENSORS_INDEX else ".bin"
    return [weights, *sorted(name for name in names if "/" not in name and name.endswith(suffix))]


def _verify(files: Iterable[Path]) -> None:
    """Compare files of the cache, those that are there, with the names that it stores them under.

    That is the SHA-256 of a large file and git's blob id of a small one, a SHA-1 over its size and content.

    Raises:
        CheckpointError: One is damaged.
    """
    for file in sorted(files):
        if not (file.is_symlink() and file.is_file()):
            continue
        # Of one link only: a Xet file is linked on to a store where names are hashes of another kind.
        stored_as = file.readlink().name
        if _SHA256.fullmatch(stored_as):
            algorithm: Callable[[], Any] = hashlib.sha256
        elif _SHA1.fullmatch(stored_as):
            header = b"blob %d\0" % file.stat().st_size
            algorithm = partial(hashlib.sha1, header, usedforsecurity=False)
        else:
            continue
        with file.open("rb") as stream:
            actual = hashlib.file_digest(stream, algorithm).hexdigest()
        if actual != stored_as:
            # Where only a link is deleted, huggingface_hub makes a new one to the same content.
            raise CheckpointError(
                f"{file}: does not match its checksum; delete {file.resolve()} and fetch it again."
            )


@contextmanager
def _cache_when_unreachable(wanted: _Wanted) -> Iterator[None]:
    """Leave the block quietly when the Hub does not answer and the cache holds the revision."""
    from huggingface_hub.errors import HfHubHTTPError

    try:
        yield
    except Exception as error:
        answered = isinstance(error, (CheckpointError, ValueError))
        if isinstance(error, HfHubHTTPError):
            answered = error.response.status_code < _SERVER_ERRORS and error.response.status_code != _TOO_MANY
        if answered or _cached(wanted, [CONFIG]) is None:
            raise


def _cached(wanted: _Wanted, files: list[str]) -> Path | None:
    """The snapshot directory; None where there is none, or files of the repository are missing in it."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    try:
        return Path(
            snapshot_download(
                wanted.repo_id, revision=wanted.revision, allow_patterns=files, local_files_only=True
            )
        )
    except (LocalEntryNotFoundError, HFValidationError):
        return None


@contextmanager
def _one_sentence(wanted: _Wanted, *, offline: bool) -> Iterator[None]:
    """Turn what huggingface_hub raises into one sentence that names the setting and the mend."""
    try:
        yield
    except CheckpointError:
        raise
    except Exception as error:
        said = _sentence(error, wanted.pin, offline=offline)
        if not offline and _cached(wanted, [CONFIG]) is not None:
            said += "; `model.offline=true` takes what the local cache holds"
        raise CheckpointError(f"Setting `model.ref`: {wanted} {said}.") from error


def _sentence(error: Exception, pin: str, *, offline: bool) -> str:
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        HFValidationError,
        IncompleteSnapshotError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    if isinstance(error, GatedRepoError):
        return "is gated: accept its terms on the Hub and set HF_TOKEN"
    if isinstance(error, RevisionNotFoundError):
        return f"is not on the Hub: correct {pin}"
    if isinstance(error, (RepositoryNotFoundError, HFValidationError)):
        return "is not on the Hub: correct `model.ref`, or set HF_TOKEN if it is private"
    if isinstance(error, HfHubHTTPError):
        return f"was refused by the Hub ({error.response.status_code}): try again, or check HF_TOKEN"
    if offline:
        return _PARTLY if isinstance(error, IncompleteSnapshotError) else _ABSENT
    return (
        f"cannot be fetched ({type(error).__name__}): check the network, "
        "or set `model.ref` to a local directory"
    )
