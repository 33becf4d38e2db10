"""What one signal adds, and where."""

import random
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from schemas.signals import CryptoSignal
from tests.signals import make_signal
from worker.aggregates.contribution import LATE, RejectedSignalError, contribution

PROCESSED = datetime(2026, 5, 4, 12, 30, 15, 250_000, tzinfo=UTC)
MINUTE = int(PROCESSED.timestamp()) // 60


def signal(**changes: Any) -> dict[str, Any]:
    base = make_signal(1, PROCESSED, PROCESSED, random.Random(1), coins=("BTC", "ETH"))
    return base | {"coins": ["BTC"], "relevance": 0.5} | changes


def published(age: timedelta) -> str:
    return (PROCESSED - age).isoformat()


@pytest.mark.parametrize(
    ("age", "minute", "has_minute", "late"),
    [
        (timedelta(0), MINUTE, True, False),
        (timedelta(hours=25), MINUTE - 1_500, True, False),
        (timedelta(hours=25, milliseconds=1), MINUTE - 1_500, False, False),
        (timedelta(days=8), MINUTE - 11_520, False, False),
        (timedelta(days=8, milliseconds=1), MINUTE, True, True),
        (timedelta(seconds=-60), MINUTE + 1, True, False),
        (timedelta(seconds=-60.001), MINUTE, True, False),
        (timedelta(days=-3_000), MINUTE, True, False),
    ],
)
def test_age_when_processed_decides_the_bucket(
    age: timedelta, minute: int, has_minute: bool, late: bool
) -> None:
    found = contribution(signal(published_at=published(age)), 0.4)
    assert (found.minute, found.has_minute, found.columns == (LATE,)) == (minute, has_minute, late)


def test_sums_are_integers_rounded_once() -> None:
    found = contribution(
        signal(certainty=0.0015, relevance=0.9995, toxicity=1, sentiment_strength="weak_neg"), 0.4
    )
    assert found.certainty == 2  # 1.5 to even
    assert found.relevance == 1000  # 999.5 to even
    assert found.toxicity == 1000
    assert found.weight == 1499  # 1499.25 millionths
    assert found.weighted_polarity == -1499  # times twice -1/2


def test_market_counts_from_the_threshold_on() -> None:
    assert contribution(signal(relevance=0.4), 0.4).symbols == ("BTC", "MARKET")
    assert contribution(signal(relevance=0.3999), 0.4).symbols == ("BTC",)
    assert contribution(signal(relevance=0.9, coins=[]), 0.4).symbols == ("MARKET",)


def test_a_coin_or_emotion_named_twice_counts_once() -> None:
    once = contribution(signal(emotions=["fear"]), 0.4)
    twice = contribution(signal(coins=["BTC", "BTC"], emotions=["fear", "fear"]), 0.4)
    assert twice == once


def test_the_contract_model_and_its_json_give_the_same() -> None:
    fields = signal(
        kind="chat",
        scores={"sentiment_strength": {}, "action_signal": {}, "emotions": {}},
        model={"name": "m", "revision": "r"},
        truncated=False,
    )
    assert contribution(CryptoSignal.model_validate(fields), 0.4) == contribution(fields, 0.4)


def test_a_time_without_zone_is_utc_and_other_zones_are_converted() -> None:
    for text in ("2026-05-04T12:30:15.250", "2026-05-04T21:30:15.250+09:00"):
        assert contribution(signal(published_at=text), 0.4).minute == MINUTE


def test_ids_are_unique_within_their_source_only() -> None:
    """Rooms number their messages alike: two first messages were taken for a repeat."""
    here, there = (contribution(signal(id="500", source=room), 0.4) for room in ("a", "b"))
    assert here.id_hash != there.id_hash
    assert here.id_hash == contribution(signal(id="500", source="a", toxicity=1), 0.4).id_hash
    bare = signal(id="500")
    del bare["source"]
    assert contribution(bare, 0.4).id_hash == contribution(dict(bare), 0.4).id_hash
    assert contribution(bare, 0.4).id_hash != contribution(bare | {"id": "501"}, 0.4).id_hash


@pytest.mark.parametrize(
    "change",
    [
        {"sentiment_strength": "bullish"},
        {"action_signal": None},
        {"emotions": ["joy"]},
        {"emotions": None},
        {"certainty": 1.01},
        {"relevance": "0.5"},
        {"toxicity": -0.1},
        {"published_at": "yesterday"},
        {"published_at": 12},
        {"processed_at": None},
        {"id": 7},
        {"source": 7},
        {"source": ["a"]},
        {"coins": "BTC"},
        {"coins": ["BTC}"]},
        {"coins": ["A B"]},
        {"coins": [""]},
        {"coins": ["MARKET"]},
        {"coins": [["BTC"]]},
        {"coins": None},
        {"author_hash": 12},
        {"author_hash": ""},
    ],
    ids=str,
)
def test_what_is_no_signal_is_rejected(change: dict[str, Any]) -> None:
    with pytest.raises(RejectedSignalError):
        contribution(signal(**change), 0.4)


@pytest.mark.parametrize("name", ["id", "coins", "certainty", "published_at", "action_signal"])
def test_a_missing_field_is_rejected(name: str) -> None:
    fields = signal()
    del fields[name]
    with pytest.raises(RejectedSignalError, match=name):
        contribution(fields, 0.4)
