"""Payloads become messages, or a dead letter's reason."""

import json
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.dead_letters import DeadLetterReason
from worker.source.decoding import (
    BadMessageError,
    decode,
    event_time,
    message_kind,
    message_text,
    record_time,
)

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


def test_record_time_takes_any_number() -> None:
    assert record_time(1_000) == datetime(1970, 1, 1, 0, 0, 1, tzinfo=UTC)
    assert record_time(2**62).year >= 2024
    assert record_time(-1).year >= 2024
