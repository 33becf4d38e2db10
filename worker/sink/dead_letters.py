"""Records for the dead-letter topic."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final

from schemas.dead_letters import DeadLetterHeaders, DeadLetterReason
from worker.sink.producer import Header, OutRecord

_OURS: Final = frozenset(field.alias or "" for field in DeadLetterHeaders.model_fields.values())
_LENGTH: Final = DeadLetterHeaders.model_fields["original_bytes"].alias or ""


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
        timestamp_ms: of the original, -1 where absent.
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


def smaller(letter: OutRecord) -> OutRecord | None:
    """A dead letter that the broker refused as too large, with less of what is longest in it.

    The value is halved; the key, and the headers of the original, are left out.

    Returns:
        None when nothing of the original is left.
    """
    headers = list(letter.headers)
    key, value = letter.key, letter.value
    headers_size = sum(len(name) + len(content or b"") for name, content in headers if name not in _OURS)
    longest = max(len(value), len(key or b""), headers_size)
    if not longest:
        return None
    if longest == len(value):
        value = value[: len(value) // 2]
    elif longest == headers_size:
        headers = [header for header in headers if header[0] in _OURS]
    else:
        key = None
    if _LENGTH not in dict(headers):
        headers.append((_LENGTH, str(len(letter.value)).encode()))
    return OutRecord(letter.topic, key, value, headers)
