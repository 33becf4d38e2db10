"""Records for the dead-letter topic."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final

from schemas.dead_letters import DeadLetterHeaders, DeadLetterReason
from worker.sink.producer import Header, OutRecord

_OURS: Final = frozenset(field.alias or "" for field in DeadLetterHeaders.model_fields.values())


def dead_letter(
    topic: str,
    *,
    place: tuple[str, int, int],
    timestamp_ms: int,
    key: bytes | None,
    value: bytes | None,
    headers: Sequence[tuple[str, bytes]],
    reason: DeadLetterReason,
    detail: str,
) -> OutRecord:
    """The original bytes, key and headers, and why they have no signal.

    Args:
        topic: the dead-letter topic.
        place: topic, partition and offset of the original.
    """
    about = DeadLetterHeaders(
        reason=reason,
        detail=detail[:500],
        topic=place[0],
        partition=place[1],
        offset=place[2],
        timestamp=timestamp_ms,
        failed_at=datetime.now(UTC).isoformat(),
    )
    ours = about.model_dump(by_alias=True, exclude_none=True)
    return OutRecord(
        topic,
        key,
        value or b"",
        [*without_ours(headers), *((name, str(text).encode()) for name, text in ours.items())],
    )


def without_ours(headers: Sequence[tuple[str, bytes]]) -> list[Header]:
    """The original headers: a replayed message that fails again does not pile them up."""
    return [(name, value) for name, value in headers if name not in _OURS]


def cut(letter: OutRecord, size: int) -> OutRecord:
    """A dead letter that the broker refused as too large, with the first ``size`` bytes of its value."""
    length: Header = ("kbert.original_bytes", str(len(letter.value)).encode())
    return OutRecord(letter.topic, letter.key, letter.value[:size], [*letter.headers, length])
