"""Checkpoints from the Hugging Face Hub: pinned, cached, checked, and never a line of their code."""

import hashlib
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final, NamedTuple

from worker.inference.errors import CheckpointError
from worker.inference.weights import PICKLED_INDEX, SAFETENSORS_INDEX, choose_weights

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
_SERVER_ERRORS: Final = 500
_TOO_MANY: Final = 429
_GIT_BLOB: Final = re.compile(r"[0-9a-f]{40}")
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

    Of several weight formats only one is downloaded. When the Hub is out of reach, what the cache holds is
    used. ``HF_TOKEN``, ``HF_HOME``, ``HF_ENDPOINT`` and ``HF_HUB_OFFLINE`` work as huggingface_hub documents.

    Returns:
        The snapshot directory and its commit.

    Raises:
        CheckpointError: Not found, not reachable, not allowed, or damaged.
    """
    wanted = _Wanted(repo_id, revision, "`model.revision`, or what follows the @")
    names = _names(wanted, offline=offline)
    weights = [] if names is None else _weight_files(names, repo_id)
    directory = _snapshot(wanted, [*_TEXT_FILES, *weights], local=names is None)
    _verify(directory.rglob("*"))
    return directory, directory.name


def fetch_tokeniser(repo_id: str, *, revision: str | None, offline: bool) -> Path:
    """Bring only tokeniser and config of a repository, for a ``.pt`` file that names its encoder.

    Raises:
        CheckpointError: As for :func:`fetch`.
    """
    wanted = _Wanted(repo_id, revision, "`model.tokeniser_revision`")
    files = [CONFIG, *TOKENISER_FILES]
    directory = _snapshot(wanted, files, local=_names(wanted, offline=offline) is None)
    _verify(directory / name for name in files)
    return directory


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
        elif _GIT_BLOB.fullmatch(stored_as):
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
        if answered or not _is_cached(wanted):
            raise


def _is_cached(wanted: _Wanted) -> bool:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        snapshot_download(
            wanted.repo_id, revision=wanted.revision, allow_patterns=[CONFIG], local_files_only=True
        )
    except LocalEntryNotFoundError:
        return False
    return True


@contextmanager
def _one_sentence(wanted: _Wanted, *, offline: bool) -> Iterator[None]:
    """Turn what huggingface_hub raises into one sentence that names the setting and the mend."""
    try:
        yield
    except CheckpointError:
        raise
    except Exception as error:
        said = _sentence(error, wanted.pin, offline=offline)
        raise CheckpointError(f"Setting `model.ref`: {wanted} {said}.") from error


def _sentence(error: Exception, pin: str, *, offline: bool) -> str:
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        HFValidationError,
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
        return (
            "is not in the local cache: fetch it once with the Hub in reach, "
            "or set `model.ref` to a local directory"
        )
    return (
        f"cannot be fetched ({type(error).__name__}): check the network, "
        "or set `model.ref` to a local directory"
    )
