"""What a candle may see: recorded signals and live series agree, and nothing later ever changes it."""

import random
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.signals import CryptoSignal
from schemas.windows import WINDOW_SECONDS, Window
from tests.serving import full_signal
from tests.signals import make_signal
from worker.aggregates.buckets import fold
from worker.aggregates.contribution import contribution
from worker.aggregates.series import METRICS, plan_series
from worker.clients.bots.candles import (
    HOUR,
    MINUTE,
    Reading,
    SeriesMemory,
    column_names,
    point_of,
    timeframe_seconds,
)
from worker.clients.bots.recorded import RecordedSignals
from worker.errors import ConfigurationError

START = datetime(2026, 3, 2, tzinfo=UTC)
BASE = int(START.timestamp())


def a_signal(number: int, published: float, processed: float, **fields: object) -> CryptoSignal:
    times = {
        "published_at": START + timedelta(seconds=published),
        "processed_at": START + timedelta(seconds=processed),
    }
    return CryptoSignal.model_validate(full_signal(number, START) | times | fields)


def random_signal(number: int, published: float, lag: float) -> CryptoSignal:
    rng = random.Random(number)
    made = make_signal(number, START, START, rng, coins=("BTC", "ETH"))
    return a_signal(number, published, published + lag, **{k: v for k, v in made.items() if "_at" not in k})


@pytest.mark.parametrize("window", ["1m", "15m", "1h", "4h"])
def test_recorded_signals_give_the_windows_of_the_live_series(window: Window) -> None:
    """With everything processed at once, both are the same integers."""
    rng = random.Random(4)
    signals = [random_signal(n, rng.uniform(0, 12 * HOUR), 0.0) for n in range(600)]
    batch = [(n, contribution(signal, 0.4)) for n, signal in enumerate(signals)]
    rows = fold({("signals", 0): batch}, {})["BTC"].minutes
    now = BASE + 13 * HOUR
    plan = plan_series(
        window,
        since=START + timedelta(hours=5),
        until=START + timedelta(hours=12),
        step=300,
        now=now,
    )
    live = plan.read("BTC", list(METRICS), rows)
    closes = [int(time.timestamp()) + 60 for time in live.times]
    recorded = RecordedSignals(signals, "BTC").at(closes, list(METRICS), window, delay=60)
    expected = list(zip(*(live.values[name] for name in column_names(list(METRICS))), strict=True))
    assert any(row[0] for row in expected)
    assert recorded == expected


@settings(max_examples=60, deadline=None)
@given(
    lags=st.lists(st.floats(0, 5_000), min_size=1, max_size=40),
    window=st.sampled_from(["5m", "1h", "4h"]),
    delay=st.integers(0, 120),
    cut=st.integers(0, 8 * HOUR),
    seed=st.integers(0, 1_000),
)
def test_a_later_signal_never_changes_an_earlier_candle(
    lags: list[float], window: Window, delay: int, cut: int, seed: int
) -> None:
    """Whatever is added, removed or changed after a close, the rows up to it stay as they are."""
    rng = random.Random(seed)
    signals = [random_signal(n, rng.uniform(0, 8 * HOUR), lag) for n, lag in enumerate(lags)]
    before = [s for s in signals if s.processed_at <= START + timedelta(seconds=cut)]
    later = [random_signal(1_000 + n, rng.uniform(0, cut), cut + 1.0) for n in range(5)]
    closes = [BASE + n * 300 for n in range(8 * 12)]
    arguments = (closes, list(METRICS), window, delay)
    known = sum(close <= BASE + cut for close in closes)
    whole = RecordedSignals([*signals, *later], "BTC").at(*arguments)
    assert RecordedSignals(before, "BTC").at(*arguments)[:known] == whole[:known]


def test_when_a_signal_counts() -> None:
    """Published 100 s after midnight (minute 1), a 5 m window, 60 s delay: from 180 s to before 480 s."""
    closes = [BASE + second for second in (179, 180, 479, 480)]
    prompt = RecordedSignals([a_signal(1, 100, 101)], "BTC")
    assert [row[0] for row in prompt.at(closes, ["messages"], "5m", 60)] == [0, 1, 1, 0]
    late = RecordedSignals([a_signal(1, 100, 300)], "BTC")
    closes = [BASE + second for second in (299, 300, 479, 480)]
    assert [row[0] for row in late.at(closes, ["messages"], "5m", 60)] == [0, 1, 1, 0]
    too_late = RecordedSignals([a_signal(1, 100, 500)], "BTC")
    assert [row[0] for row in too_late.at([BASE + 500], ["messages"], "5m", 60)] == [0]
    twice = RecordedSignals([a_signal(1, 100, 101), a_signal(1, 100, 102)], "BTC")
    assert [row[0] for row in twice.at([BASE + 200], ["messages"], "5m", 60)] == [1]
    assert RecordedSignals([a_signal(1, 100, 101)], "ETH").at([BASE + 200], ["messages"], "5m") == [(0,)]


def test_the_same_id_in_another_room_is_another_signal() -> None:
    rooms = [a_signal(500, 100, 101, source=room) for room in ("a", "b", "a")]
    assert RecordedSignals(rooms, "BTC").at([BASE + 200], ["messages"], "5m", 60) == [(2,)]


@given(close=st.integers(BASE, BASE + 10**6), delay=st.integers(0, 600))
def test_a_candle_sees_a_point_that_was_over(close: int, delay: int) -> None:
    point = point_of(close, delay)
    assert point % MINUTE == 0
    assert close - delay - MINUTE < point <= close - delay


class Server:
    """Buckets of the past eight days where every minute holds one message, seen from ``now``."""

    def __init__(self) -> None:
        self.asked: list[Reading] = []
        self.number = 0

    def fill(self, memory: SeriesMemory, first: int, last: int, now: float, window: Window) -> None:
        for reading in memory.missing(first, last, now):
            self.asked.append(reading)
            plan = plan_series(
                window,
                since=datetime.fromtimestamp(reading.since, UTC),
                until=datetime.fromtimestamp(reading.until, UTC),
                step=reading.step,
                now=now,
            )
            self.number += 1
            row = [self.number] * 40
            memory.add(reading, plan.read("BTC", ["messages"], dict.fromkeys(plan.buckets, row)))


@pytest.mark.parametrize("window", list(WINDOW_SECONDS)[:6])
def test_memory_asks_for_each_point_once_and_keeps_what_it_saw(window: Window) -> None:
    memory, server = SeriesMemory(["messages"], window), Server()
    now = BASE + 40 * HOUR + 17.5
    last = point_of(int(now))
    first = last - 5 * 24 * HOUR
    server.fill(memory, first, last, now, window)
    assert len(server.asked) == (2 if WINDOW_SECONDS[window] >= HOUR else 1)
    assert memory.at(last) != (None,)
    assert memory.at(first + HOUR) != (None,) or WINDOW_SECONDS[window] < HOUR
    assert memory.at(last + MINUTE) == (None,)
    seen = memory.at(last)
    server.fill(memory, first, last, now, window)
    asked = len(server.asked)
    server.fill(memory, first + 300, last + 300, now + 300, window)
    assert server.asked[asked:] == [Reading(last, last + 300, MINUTE)]
    assert memory.at(last) == seen
    assert memory.at(last + 300) not in (seen, (None,))
    memory.forget_before(last)
    assert memory.at(first) == (None,)
    assert memory.at(last) == seen


def test_memory_reads_further_back_when_it_has_to() -> None:
    memory, server = SeriesMemory(["messages"], "1h"), Server()
    now = BASE + 40 * HOUR + 17.5
    last = point_of(int(now))
    server.fill(memory, last, last, now, "1h")
    seen = memory.at(last)
    assert memory.at(last - 300) == (None,)
    for back in (HOUR, 3 * 24 * HOUR):
        server.fill(memory, last - back, last, now, "1h")
        assert memory.at(last - back // 2) != (None,)
        assert memory.at(last - MINUTE) != (None,)
    assert memory.at(last) == seen
    asked = len(server.asked)
    server.fill(memory, last - 3 * 24 * HOUR, last, now, "1h")
    assert len(server.asked) == asked
    server.fill(memory, last + 600, last + 600, now + 600, "1h")
    assert memory.at(last + 300) != (None,)  # no hole where one candle alone was asked for


@pytest.mark.parametrize("window", [window for window, length in WINDOW_SECONDS.items() if length >= HOUR])
def test_memory_goes_on_by_the_hour_where_minutes_do_not_reach(window: Window) -> None:
    """Old candles, then one after another, two hours without an answer, and all again: no hole is left."""
    memory, server = SeriesMemory(["messages"], window), Server()
    first = BASE + 40 * HOUR
    points = range(first, first + 8 * HOUR, 300)
    away = range(first + 3 * HOUR, first + 5 * HOUR)
    server.fill(memory, first - 24 * HOUR, first, first + 17.5, window)
    before = len(server.asked)
    for point in points:
        if point not in away:
            server.fill(memory, point, point, point + 77.5, window)
            assert memory.at(point) != (None,)
    seen = {point: memory.at(point) for point in points if point not in away}
    server.fill(memory, first, points[-1], points[-1] + 77.5, window)
    assert all(memory.at(point) != (None,) for point in points)
    assert {point: memory.at(point) for point in seen} == seen
    by_hour = sum(reading.step == HOUR for reading in server.asked[before:])
    assert by_hour == {"7d": 6, "24h": 1}.get(window, 0)
    asked = len(server.asked)
    server.fill(memory, first, points[-1], points[-1] + 77.5, window)
    assert len(server.asked) == asked


def test_memory_asks_for_no_hour_that_the_server_has_not() -> None:
    memory = SeriesMemory(["messages"], "7d")
    now = BASE + 40 * HOUR + 17.5
    assert memory.missing(BASE - 240 * HOUR, BASE + 15 * HOUR, now) == []
    (reading,) = memory.missing(BASE - 240 * HOUR, BASE + 18 * HOUR, now)
    assert reading == Reading(BASE + 16 * HOUR, BASE + 18 * HOUR, HOUR)


def test_timeframes() -> None:
    assert [timeframe_seconds(text) for text in ("1m", "5m", "4h", "1d", "1w")] == [
        60, 300, 14_400, 86_400, 604_800,
    ]  # fmt: skip
    with pytest.raises(ConfigurationError, match="5m, 1h or 1d"):
        timeframe_seconds("5x")
    with pytest.raises(ConfigurationError, match="there are messages"):
        column_names(["nothing"])
