"""The index from a file of articles, without Kafka and Redis."""

import gzip
import zlib
from codecs import BOM_UTF8
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO, Final, Protocol, cast

import orjson

from schemas.messages import RawMessage
from worker.errors import KbertError
from worker.line_ids import content_id
from worker.narrative.sums import IN_FUTURE, Accumulator, RejectedSignalError, contribution
from worker.source.decoding import BadMessageError, decode, event_time

_CHUNK: Final = 512


class ArticleTask(Protocol):
    """What `worker.tasks.TrafficTask` does."""

    def text(self, message: RawMessage) -> str:
        """The text that is classified."""
        ...

    def signal(
        self,
        message: RawMessage,
        *,
        message_id: str,
        published_at: datetime,
        processed_at: datetime,
        prediction: Mapping[str, Any],
        truncated: bool,
    ) -> dict[str, Any]:
        """The signal of a message."""
        ...


class ArticleModel(Protocol):
    """What `worker.inference.load.Model` does."""

    def classify(self, texts: Sequence[str]) -> list[dict[str, Any]]:
        """Fields of the signal for each text, and ``truncated``."""
        ...


@dataclass(slots=True)
class Built:
    """What became of a file's lines."""

    accumulator: Accumulator
    lines: int = 0
    rejected: list[tuple[str, str]] = field(default_factory=list)
    """Place and reason of what could not be counted."""


def build_from_articles(
    paths: Sequence[Path], model: ArticleModel, task: ArticleTask, *, max_bytes: int, max_future: float
) -> Built:
    """Classify raw messages (JSONL, also gzipped) and count them, as the stream would.

    An article without ``published_at``, or more than ``max_future`` seconds before its time, is left out:
    a file has no broker whose clock could stand in.
    """
    built = Built(Accumulator())
    now = datetime.now(UTC)
    for chunk in _chunks(_lines(paths)):
        messages: list[tuple[str, str, datetime, RawMessage]] = []
        for place, line in chunk:
            built.lines += 1
            try:
                message = decode(line, max_bytes)
            except BadMessageError as error:
                built.rejected.append((place, error.detail))
                continue
            if message.published_at is None:
                built.rejected.append((place, "published_at is missing"))
            elif event_time(message.published_at, now, max_future) != message.published_at:
                built.rejected.append((place, IN_FUTURE))
            else:
                messages.append((place, message.id or content_id(line), message.published_at, message))
        predictions = model.classify([task.text(message) for *_, message in messages])
        for (place, message_id, published_at, message), prediction in zip(messages, predictions, strict=True):
            truncated = prediction.pop("truncated")
            signal = task.signal(
                message,
                message_id=message_id,
                published_at=published_at,
                processed_at=now,
                prediction=prediction,
                truncated=truncated,
            )
            _count(signal, place, built, max_future)
    return built


def build_from_signals(paths: Sequence[Path], *, max_future: float) -> Built:
    """Count signals that were classified before (`kbert classify --pipeline traffic`).

    Those dated more than ``max_future`` seconds, at least a day, after they were processed are left out.
    """
    built = Built(Accumulator())
    for place, line in _lines(paths):
        built.lines += 1
        try:
            value = orjson.loads(line.removeprefix(BOM_UTF8) if place.endswith(":1") else line)
        except orjson.JSONDecodeError as error:
            built.rejected.append((place, str(error)))
            continue
        signal = value if isinstance(value, dict) else {}
        if "error" in signal:
            built.rejected.append((place, f"kbert classify could not read it: {_detail(signal['error'])}"))
        elif "published_at" in signal and signal["published_at"] == signal.get("processed_at"):
            # What `kbert classify` gives an article without a time; a real one is older when it is processed.
            built.rejected.append((place, "published_at is missing"))
        else:
            _count(signal, place, built, max_future)
    return built


def _detail(error: Any) -> Any:
    return error.get("detail", error) if isinstance(error, dict) else error


def _count(signal: Mapping[str, Any], place: str, built: Built, max_future: float) -> None:
    try:
        built.accumulator.add(contribution(signal, max_future))
    except RejectedSignalError as error:
        built.rejected.append((place, str(error)))


def _lines(paths: Sequence[Path]) -> Iterator[tuple[str, bytes]]:
    for path in paths:
        try:
            with cast(BinaryIO, gzip.open(path) if path.suffix == ".gz" else path.open("rb")) as file:
                for number, line in enumerate(file, 1):
                    if stripped := line.rstrip(b"\r\n"):
                        yield f"{path.name}:{number}", stripped
        except (OSError, EOFError, zlib.error) as error:
            raise KbertError(f"{path} cannot be read: {error}.") from error


def _chunks(lines: Iterable[tuple[str, bytes]]) -> Iterator[list[tuple[str, bytes]]]:
    chunk: list[tuple[str, bytes]] = []
    for line in lines:
        chunk.append(line)
        if len(chunk) == _CHUNK:
            yield chunk
            chunk = []
    if chunk:
        yield chunk
