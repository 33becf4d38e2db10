"""The latest signals in memory: which are found, and in which order."""

from datetime import UTC, datetime, timedelta

import pytest

from schemas.signals import CryptoSignal
from tests.serving import full_signal
from worker.serve.recent import RecentSignals
from worker.signal_filter import SignalFilter

START = datetime(2026, 3, 1, tzinfo=UTC)


def recent() -> RecentSignals:
    """Two partitions that were read back one after the other."""
    made = RecentSignals(100)
    for number in (0, 2, 4, 1, 3, 5):
        fields = {"emotions": ["fear"] if number % 2 else ["hope", "greed"]}
        at = START + timedelta(seconds=number)
        signal = CryptoSignal.model_validate(full_signal(number, at, ("BTC", f"C{number}"), **fields))
        made.add(signal, str(number).encode())
    return made


@pytest.mark.parametrize("coins", [None, frozenset({"BTC"})])
def test_newest_first_whatever_came_first(coins: frozenset[str] | None) -> None:
    found = recent().find(SignalFilter(coins=coins), limit=4)
    assert found == [b"5", b"4", b"3", b"2"]


@pytest.mark.parametrize("coins", [None, frozenset({"BTC"})])
def test_the_newest_stay_whichever_partition_came_last(coins: frozenset[str] | None) -> None:
    """Dropped in the order of arrival, what the first partitions had newest was gone."""
    made = RecentSignals(120)
    for partition in range(3):
        for number in range(partition, 600, 3):
            at = START + timedelta(seconds=number)
            signal = CryptoSignal.model_validate(full_signal(number, at, ("BTC",)))
            made.add(signal, str(number).encode())
    found = made.find(SignalFilter(coins=coins), limit=1_000)
    assert found == [str(number).encode() for number in range(599, 479 if coins is None else 499, -1)]


def test_one_emotion_is_enough() -> None:
    assert recent().find(SignalFilter(emotions=frozenset({"greed", "anger"})), 10) == [b"4", b"2", b"0"]
    assert recent().find(SignalFilter(emotions=frozenset({"anger"})), 10) == []


def test_a_coin_of_its_own() -> None:
    assert recent().find(SignalFilter(coins=frozenset({"C3"})), 10) == [b"3"]
    assert recent().find(SignalFilter(coins=frozenset({"C3", "C4"})), 10) == [b"4", b"3"]
