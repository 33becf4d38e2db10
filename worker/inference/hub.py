"""Checkpoints from the Hugging Face Hub: pinned, cached, checked, and never a line of their code."""

import hashlib
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from worker.inference.errors import CheckpointError
from worker.inference.weights import PICKLED_INDEX, SAFETENSORS_INDEX, choose_weights

HUB_ID: Final = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")

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
_SHA256: Final = re.compile(r"[0-9a-f]{64}")
_PATIENCE: Final = 10.0
"""Seconds; by itself huggingface_hub waits for ever, and a Hub that never answered held up a cached model."""


def fetch(repo_id: str, *, revision: str | None, offline: bool) -> tuple[Path, str]:
    """Bring weights, tokeniser and config of a repository into the Hub cache.

    Of several weight formats only one is downloaded. When the Hub is out of reach, what the cache holds is
    used. ``HF_TOKEN``, ``HF_HOME``, ``HF_ENDPOINT`` and ``HF_HUB_OFFLINE`` work as huggingface_hub documents.

    Returns:
        The snapshot directory and its commit.

    Raises:
        CheckpointError: Not found, not reachable, not allowed, or damaged.
    """
    names = _names(repo_id, revision, offline=offline)
    weights = [] if names is None else _weight_files(names, repo_id)
    directory = _snapshot(repo_id, revision, [*_TEXT_FILES, *weights], local=names is None)
    _verify(directory)
    return directory, directory.name


def fetch_tokeniser(repo_id: str, *, offline: bool) -> Path:
    """Bring only tokeniser and config of a repository, for a ``.pt`` file that names its encoder.

    Raises:
        CheckpointError: As for :func:`fetch`.
    """
    local = _names(repo_id, None, offline=offline) is None
    return _snapshot(repo_id, None, [CONFIG, *TOKENISER_FILES], local=local)


def _names(repo_id: str, revision: str | None, *, offline: bool) -> set[str] | None:
    """The files of a repository; None where what the cache holds has to do."""
    from huggingface_hub import HfApi

    names: set[str] | None = None
    if not _is_offline(offline):
        with _one_sentence(repo_id, revision, offline=False), _cache_when_unreachable(repo_id, revision):
            info = HfApi().model_info(repo_id, revision=revision, timeout=_PATIENCE)
            names = {sibling.rfilename for sibling in info.siblings or ()}
    return names


def _snapshot(repo_id: str, revision: str | None, wanted: list[str], *, local: bool) -> Path:
    from huggingface_hub import snapshot_download

    with _one_sentence(repo_id, revision, offline=local):
        return Path(
            snapshot_download(repo_id, revision=revision, allow_patterns=wanted, local_files_only=local)
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


def _verify(directory: Path) -> None:
    """The cache stores a large file under its SHA-256: compare, so that a damaged one is not served."""
    for file in sorted(directory.rglob("*")):
        stored_as = file.resolve().name
        if not file.is_file() or not _SHA256.fullmatch(stored_as):
            continue
        with file.open("rb") as stream:
            actual = hashlib.file_digest(stream, "sha256").hexdigest()
        if actual != stored_as:
            raise CheckpointError(f"{file}: does not match its checksum; delete it and fetch it again.")


@contextmanager
def _cache_when_unreachable(repo_id: str, revision: str | None) -> Iterator[None]:
    """Leave the block quietly when the Hub does not answer and the cache holds the revision."""
    from huggingface_hub.errors import HfHubHTTPError

    try:
        yield
    except Exception as error:
        answered = isinstance(error, (CheckpointError, ValueError))
        if isinstance(error, HfHubHTTPError):
            answered = error.response.status_code < _SERVER_ERRORS and error.response.status_code != _TOO_MANY
        if answered or not _is_cached(repo_id, revision):
            raise


def _is_cached(repo_id: str, revision: str | None) -> bool:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        snapshot_download(repo_id, revision=revision, allow_patterns=[CONFIG], local_files_only=True)
    except LocalEntryNotFoundError:
        return False
    return True


@contextmanager
def _one_sentence(repo_id: str, revision: str | None, *, offline: bool) -> Iterator[None]:
    """Turn what huggingface_hub raises into one sentence that names the setting and the mend."""
    try:
        yield
    except CheckpointError:
        raise
    except Exception as error:
        what = repo_id if revision is None else f"{repo_id} at revision {revision}"
        raise CheckpointError(f"Setting `model.ref`: {what} {_sentence(error, offline=offline)}.") from error


def _sentence(error: Exception, *, offline: bool) -> str:
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
        return "is not on the Hub: correct `model.revision`"
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
