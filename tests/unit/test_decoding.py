"""Payloads become messages, or a dead letter's reason."""

import json
from datetime import UTC, datetime, timedelta

import pytest
import structlog
from aiokafka import TopicPartition
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from schemas.dead_letters import DeadLetterReason
from schemas.topics import TIMESTAMP_HEADER
from worker.source import decoding
from worker.source.decoding import (
    BadMessageError,
    decode,
    event_time,
    made_up_id,
    message_kind,
    message_text,
    record_time,
    record_timestamp,
)
from worker.source.record import Claim, Record
from worker.telemetry.seldom import Seldom

LIMIT = 100_000


@pytest.mark.parametrize(
    ("payload", "text"),
    [
        ("비트 가즈아", "비트 가즈아"),
        ("[속보] 비트코인 신고가", "[속보] 비트코인 신고가"),
        ('"따옴표"', '"따옴표"'),
        ("12345", "12345"),
        ("\ufeff비트", "비트"),
        ('{"text": "이더 떡상"}', "이더 떡상"),
        ('\ufeff \n{"text": "이더 떡상"}', "이더 떡상"),
        ('{"title": "제목", "body": "본문"}', "제목 본문"),
        ('{"title": "제목"}', "제목"),
        ('{"text": "", "title": "트럭 추돌"}', "트럭 추돌"),
        ('{"text": " ", "title": "\\t", "body": "본문"}', "본문"),
        ("ㅋㅋㅋㅋ🚀🚀", "ㅋㅋㅋㅋ🚀🚀"),
    ],
)
def test_text_or_json(payload: str, text: str) -> None:
    assert message_text(decode(payload.encode(), LIMIT)) == text


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        (None, DeadLetterReason.EMPTY_PAYLOAD),
        (b"", DeadLetterReason.EMPTY_PAYLOAD),
        (b"  \n", DeadLetterReason.EMPTY_TEXT),
        (b'{"text": ""}', DeadLetterReason.EMPTY_TEXT),
        (b'{"text": "\\u3000 \\t"}', DeadLetterReason.EMPTY_TEXT),
        (b'{"text": "x"', DeadLetterReason.INVALID_JSON),
        (b'{"text": "\\ud800"}', DeadLetterReason.INVALID_JSON),
        (b'{"text": NaN}', DeadLetterReason.INVALID_MESSAGE),
        (b"{}", DeadLetterReason.INVALID_MESSAGE),
        (b'{"text": ["x"]}', DeadLetterReason.INVALID_MESSAGE),
        (b'{"text": "x", "published_at": "yesterday"}', DeadLetterReason.INVALID_MESSAGE),
        (b'{"text": "x", "id": ""}', DeadLetterReason.INVALID_MESSAGE),
        (b"\xff\xfe\x00", DeadLetterReason.NOT_UTF8),
        (b'{"text": "\xff"}', DeadLetterReason.NOT_UTF8),
        (b"a" * (LIMIT + 1), DeadLetterReason.PAYLOAD_TOO_LARGE),
        (b'{"a":' * 5_000, DeadLetterReason.INVALID_JSON),
    ],
)
def test_refusals_carry_their_reason(payload: bytes | None, reason: DeadLetterReason) -> None:
    with pytest.raises(BadMessageError) as refused:
        decode(payload, LIMIT)
    assert refused.value.reason is reason
    assert refused.value.detail


@given(
    payload=st.binary(max_size=300) | st.text(max_size=200).map(lambda t: t.encode("utf-8", "surrogatepass"))
)
def test_any_bytes_are_a_message_or_a_reason(payload: bytes) -> None:
    try:
        message = decode(payload, LIMIT)
    except BadMessageError as refused:
        assert refused.reason in DeadLetterReason
    else:
        assert message_text(message).strip()


@given(
    document=st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
        lambda children: st.lists(children) | st.dictionaries(st.text(), children),
        max_leaves=10,
    ),
    name=st.sampled_from(["text", "title", "id", "published_at", "author", "kind", "source"]),
)
def test_any_json_value_in_any_field_is_a_message_or_a_reason(document: object, name: str) -> None:
    payload = json.dumps({"body": "본문", name: document}).encode()
    try:
        decode(payload, LIMIT)
    except BadMessageError as refused:
        assert refused.reason in DeadLetterReason


def test_kind_is_given_or_follows_the_title() -> None:
    assert message_kind(decode(b"x", LIMIT)) == "chat"
    assert message_kind(decode(b'{"title": "x"}', LIMIT)) == "news"
    assert message_kind(decode(b'{"text": "x", "kind": "news"}', LIMIT)) == "news"
    assert message_kind(decode(b'{"text": "x", "source": "news"}', LIMIT)) == "news"


def test_event_time_is_clamped_by_the_record_and_not_by_the_clock() -> None:
    record = datetime(2020, 5, 1, tzinfo=UTC)
    assert event_time(None, record, 60) == record
    assert event_time(record + timedelta(seconds=60), record, 60) == record + timedelta(seconds=60)
    assert event_time(record + timedelta(seconds=61), record, 60) == record
    assert event_time(record - timedelta(days=9000), record, 60) == record - timedelta(days=9000)


WRITTEN = 1_750_000_000_000


def record(timestamp: int, *headers: tuple[str, bytes]) -> Record:
    return Record(Claim(TopicPartition("raw", 3)), 7, timestamp, None, b"x", headers)


def test_a_record_is_of_its_own_time() -> None:
    assert record_time(record(WRITTEN)) == datetime.fromtimestamp(WRITTEN / 1000, UTC)
    assert record_time(record(1_262_304_000_000)) == datetime(2010, 1, 1, tzinfo=UTC)
    assert record_time(record(253_402_300_799_999)).year == 9999


@pytest.mark.parametrize("timestamp", [0, 1_750_000_000, -5, 253_402_300_800_000, WRITTEN * 1_000, 2**62])
def test_a_timestamp_without_sense_is_none_and_said_seldom(
    timestamp: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A producer that wrote seconds had every message set back to 1970, whatever its published_at was."""
    published = datetime.now(UTC) - timedelta(seconds=5)
    with capture_logs() as lines:
        monkeypatch.setattr(decoding, "_seldom", Seldom(structlog.get_logger()))
        for _ in range(3):
            assert event_time(published, record_time(record(timestamp)), 60) == published
    (said,) = lines
    assert (said["event"], said["timestamp"]) == ("record.timestamp_without_sense", timestamp)
    assert (said["topic"], said["partition"], said["offset"]) == ("raw", 3, 7)
    assert "producer's clock" in said["mend"]


def test_a_record_without_a_timestamp_is_nobodys_fault() -> None:
    with capture_logs() as lines:
        assert datetime.now(UTC) - record_time(record(-1)) < timedelta(seconds=60)
    assert lines == []


def test_a_replayed_record_is_of_the_time_of_its_first() -> None:
    first = WRITTEN - 3_600_000
    replayed = record(WRITTEN, ("trace", b"t"), (TIMESTAMP_HEADER, str(first).encode()))
    assert record_timestamp(replayed) == first
    assert record_time(replayed) == datetime.fromtimestamp(first / 1000, UTC)


@pytest.mark.parametrize(
    "header",
    [b"", b"-1", b"0", b"1750000000", b" 1749999999999", b"1_749_999_999_999", b"9" * 5_000, b"x", b"\xff",
     str(WRITTEN + 1).encode(), b"4102444800000"],
)  # fmt: skip
def test_a_header_without_sense_or_ahead_of_its_record_is_passed_over(header: bytes) -> None:
    assert record_timestamp(record(WRITTEN, (TIMESTAMP_HEADER, header))) == WRITTEN


def test_a_made_up_id_is_another_where_a_topic_is_made_anew() -> None:
    """Its first messages were dropped as repeats of those that the topic held before."""
    assert made_up_id("raw", 0, 0, WRITTEN) == f"raw:0:0:{WRITTEN}" != made_up_id("raw", 0, 0, WRITTEN + 1)
    assert made_up_id("raw", 0, 0, -1) == "raw:0:0"
