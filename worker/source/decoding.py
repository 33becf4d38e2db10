"""Bytes of a record to a message, or the reason why not."""

from datetime import UTC, datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Final

import structlog
from pydantic import TypeAdapter, ValidationError

from schemas.dead_letters import DeadLetterReason
from schemas.messages import RawMessage
from schemas.topics import TIMESTAMP_HEADER
from worker.telemetry.seldom import Seldom

if TYPE_CHECKING:
    from worker.source.record import Record

_BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"
_JSON_SPACE: Final = b" \t\r\n"
_BRACE: Final = ord("{")
_VALIDATOR: Final = TypeAdapter(RawMessage).validator  # `model_validate_json` costs a third more

_FIRST_MS: Final = 1_262_304_000_000
"""2010, before Kafka: a timestamp below it counts seconds, or was never set."""
_LAST_MS: Final = 253_402_300_799_999
"""The end of the year 9999, the last that a calendar here has."""
_DIGITS: Final = len(str(_LAST_MS))
_NO_TIMESTAMP: Final = -1

_seldom = Seldom(structlog.get_logger(__name__))


class BadMessageError(Exception):
    """A payload that cannot become a signal; carries the reason of its dead letter."""

    def __init__(self, reason: DeadLetterReason, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail


def decode(payload: bytes | None, max_bytes: int) -> RawMessage:
    """Read one payload.

    A payload whose first character is ``{`` is JSON and has to be a RawMessage; anything
    else that is UTF-8 is the text itself. (Headlines start with ``[``, and people write
    ``"`` and numbers, so no other JSON value is looked for.)

    Raises:
        BadMessageError: with the reason code and one sentence.
    """
    if not payload:
        raise BadMessageError(DeadLetterReason.EMPTY_PAYLOAD, "the record has no value")
    if len(payload) > max_bytes:
        raise BadMessageError(
            DeadLetterReason.PAYLOAD_TOO_LARGE,
            f"{len(payload)} bytes are over source.max_payload_bytes={max_bytes}",
        )
    body = payload
    if body[0] != _BRACE:
        body = body.removeprefix(_BYTE_ORDER_MARK).lstrip(_JSON_SPACE)
    message = _decode_json(body) if body[:1] == b"{" else _decode_text(payload)
    if not message_text(message):
        raise BadMessageError(DeadLetterReason.EMPTY_TEXT, "the message has no text")
    return message


def message_text(message: RawMessage) -> str:
    """The text that the crypto heads read: the text itself, or title and body on one line; "" where blank."""
    text = message.text
    if text and not text.isspace():
        return text
    return " ".join(part for part in (message.title, message.body) if part and not is_blank(part))


def is_blank(text: str) -> bool:
    """Whether there is nothing to read in it."""
    return not text or text.isspace()


def message_kind(message: RawMessage) -> str:
    """``chat`` or ``news``: as given, by a source of that name, or by whether there is a title."""
    if message.kind is not None:
        return message.kind
    if message.source in ("chat", "news"):
        return message.source
    return "news" if message.title is not None else "chat"


def event_time(published_at: datetime | None, record_time: datetime, max_future: float) -> datetime:
    """When the message was published.

    The record's time stands in where ``published_at`` is absent, or lies more than
    ``max_future`` seconds past it: a clock that runs ahead would open windows that no one
    closes. Only the record decides, never the wall clock, so a replay gives the same time.
    """
    if published_at is None:
        return record_time
    if (published_at - record_time).total_seconds() > max_future:
        return record_time
    return published_at


def record_timestamp(record: "Record") -> int:
    """When a record was written (ms since the epoch, -1 where absent), a replayed one for the first time.

    A replay keeps that time in the header ``kbert.timestamp``. A header later than the record itself is not
    believed, so none can move a message into the future.
    """
    for name, value in record.headers:
        if name == TIMESTAMP_HEADER and value and len(value) <= _DIGITS and value.isdigit():
            first = int(value)
            if _FIRST_MS <= first <= min(record.timestamp, _LAST_MS):
                return first
    return record.timestamp


def record_time(record: "Record") -> datetime:
    """`record_timestamp` as a time; now, where it is absent or lies outside the years 2010 to 9999."""
    timestamp = record_timestamp(record)
    if _FIRST_MS <= timestamp <= _LAST_MS:
        return _time_at(timestamp)
    if timestamp != _NO_TIMESTAMP:
        partition = record.claim.partition
        _seldom.warning(
            "record.timestamp_without_sense",
            topic=partition.topic,
            partition=partition.partition,
            offset=record.offset,
            timestamp=timestamp,
            mend="correct the producer's clock, or let it write milliseconds since 1970",
        )
    return datetime.now(UTC)


def made_up_id(topic: str, partition: int, offset: int, timestamp_ms: int) -> str:
    """Id of a message that brings none: the place of its record, and when that was written.

    The place alone comes again where a topic is made anew.
    """
    place = f"{topic}:{partition}:{offset}"
    return place if timestamp_ms < 0 else f"{place}:{timestamp_ms}"


@lru_cache(maxsize=256)  # records that were produced together carry one timestamp
def _time_at(timestamp_ms: int) -> datetime:
    return datetime.fromtimestamp(timestamp_ms / 1000, UTC)


def _decode_text(payload: bytes) -> RawMessage:
    try:
        text = payload.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise BadMessageError(DeadLetterReason.NOT_UTF8, f"not UTF-8 at byte {error.start}") from None
    return RawMessage(text=text)


def _decode_json(body: bytes) -> RawMessage:
    try:
        message: RawMessage = _VALIDATOR.validate_json(body)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        if first["type"] == "json_invalid":
            reason = DeadLetterReason.INVALID_JSON
            try:
                body.decode()
            except UnicodeDecodeError as decode_error:
                raise BadMessageError(
                    DeadLetterReason.NOT_UTF8, f"not UTF-8 at byte {decode_error.start}"
                ) from None
        else:
            reason = DeadLetterReason.INVALID_MESSAGE
        where = ".".join(str(part) for part in first["loc"])
        raise BadMessageError(reason, f"{where}: {first['msg']}" if where else first["msg"]) from None
    return message
