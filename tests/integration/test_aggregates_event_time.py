"""Event time on a real Redis: whatever comes late, early, out of order or twice, windows equal a recount."""

import random
from datetime import UTC, datetime, timedelta
from itertools import count, pairwise
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from schemas.windows import MARKET, WINDOWS
from tests.recount import RELEVANT_FROM, Recount
from tests.signals import make_signal
from worker.aggregates.keys import Keys
from worker.aggregates.project import Aggregator
from worker.aggregates.reader import AggregateReader
from worker.aggregates.store import RedisStore

HOUR, DAY = timedelta(hours=1), timedelta(days=1)
ZONES = (ZoneInfo("Europe/Berlin"), ZoneInfo("America/New_York"), ZoneInfo("Australia/Lord_Howe"))
"""Where clocks are changed: at one in the morning UTC, late in the evening before, and by half an hour."""
SILENT = "DOGE"
LAGS = (0.0, 0.001, 40.0, 25 * 3600, 25 * 3600 + 0.001, 8 * 86_400, 8 * 86_400 + 0.001, 20 * 86_400)
LEADS = (0.001, 59.999, 60.0, 60.001, 3_600.0, 400 * 86_400.0)
"""Seconds by which a message is late or ahead: at the edges of the rules, and far beyond."""
PREFIXES = count()


def next_change(zone: ZoneInfo, after: datetime) -> datetime:
    """The next hour, in UTC, at which the zone's clocks are changed."""
    hours = (after + n * HOUR for n in range(400 * 24))
    return next(
        now
        for before, now in pairwise(hours)
        if before.astimezone(zone).utcoffset() != now.astimezone(zone).utcoffset()
    )


def boundaries() -> list[tuple[datetime, ZoneInfo]]:
    """Moments to come, for a real Redis has let go of old buckets; and the zone whose clocks show them."""
    start = datetime.now(UTC).replace(minute=0, second=0, microsecond=0) + 30 * DAY
    changes = [(next_change(zone, start), zone) for zone in ZONES]
    changes += [(next_change(zone, change + DAY), zone) for change, zone in changes]  # and back
    years = (ZoneInfo("UTC"), ZoneInfo("Asia/Seoul"))
    return changes + [(datetime(start.year + 1, 1, 1, tzinfo=zone).astimezone(UTC), zone) for zone in years]


BOUNDARIES = boundaries()


def make_signals(
    now: datetime, boundary: datetime, zone: ZoneInfo, rng: random.Random
) -> list[dict[str, Any]]:
    """Bursts about the boundary and the edges of windows, in no order; one coin was silent for a week."""
    centres = (boundary, now, now - 7 * DAY, now - 25 * HOUR, now - 24 * HOUR, now - 8 * DAY)
    signals: list[dict[str, Any]] = []

    def add(published: datetime, **fields: Any) -> None:
        published -= published.microsecond % 1_000 * timedelta(microseconds=1)  # ages are whole milliseconds
        late = rng.random() < 0.7
        processed = published + timedelta(seconds=rng.choice(LAGS) if late else -rng.choice(LEADS))
        processed = min(now, processed)  # what is read now is processed
        signal = make_signal(len(signals), published.astimezone(zone), processed, rng, ("BTC", "ETH"))
        signals.append(signal | fields)

    for _ in range(rng.randint(1, 8)):
        centre, width = rng.choice(centres), rng.choice((1, 90, 7_200))
        for _ in range(rng.randint(1, 30)):
            add(centre + timedelta(seconds=rng.uniform(-width, width)))
    for _ in range(rng.randint(1, 40)):
        add(now - 7 * DAY - timedelta(seconds=rng.uniform(0, 90_000)), coins=[SILENT], relevance=1.0)
    if rng.random() < 0.5:
        add(now, coins=[SILENT])
    rng.shuffle(signals)
    return signals


def deliver(signals: list[dict[str, Any]], rng: random.Random) -> dict[str, list[dict[str, Any]]]:
    """Two partitions of them, some of them twice: a repeat stands on the partition of its original."""
    log: dict[str, list[dict[str, Any]]] = {"0": [], "1": []}
    for signal in signals:
        records = log[rng.choice("01")]
        records.append(signal)
        if rng.random() < 0.1:
            records.append(rng.choice(records))
    return log


@pytest.mark.parametrize(("boundary", "zone"), BOUNDARIES, ids=str)
@given(seed=st.integers(0, 2**32), after=st.integers(-2 * 3_600_000, 26 * 3_600_000))
@example(seed=1, after=0)
@example(seed=3, after=7 * 86_400_000)  # the boundary lies at the far end of the longest window
@settings(
    max_examples=3,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
async def test_windows_equal_a_recount_about_a_boundary(
    redis_url: str, redis_prefix: str, boundary: datetime, zone: ZoneInfo, *, seed: int, after: int
) -> None:
    rng = random.Random(seed)
    now = boundary + timedelta(milliseconds=after)
    signals = make_signals(now, boundary, zone, rng)
    log = deliver(signals, rng)
    prefix = f"{redis_prefix}{next(PREFIXES)}:"
    async with RedisStore(redis_url) as store:
        size = rng.choice((1, 7, 1_000))
        # The second one reads all of it once more, as after a restart.
        for aggregator in [Aggregator(store, prefix=prefix, relevant_from=RELEVANT_FROM) for _ in range(2)]:
            for start in range(0, max(map(len, log.values())), size):
                batch = {
                    ("signals", int(number)): list(enumerate(records))[start : start + size]
                    for number, records in log.items()
                }
                await aggregator.apply({partition: part for partition, part in batch.items() if part})
        reader = AggregateReader(store, Keys(prefix), clock=now.timestamp)
        symbols = [MARKET, *await reader.coins()]
        found = {symbol: await reader.coin(symbol, now) for symbol in symbols}
        one_window = {window: await reader.window(window, now) for window in WINDOWS}
    recount = Recount(signals, now)
    assert set(symbols) == recount.symbols
    recount.check_all({symbol: coin.windows for symbol, coin in found.items()})
    for symbol, coin in found.items():
        assert coin.freshness == pytest.approx(recount.freshness(symbol), abs=0.002)
        assert coin.windows == {window: one_window[window][symbol] for window in WINDOWS}


def test_the_boundaries_are_what_they_say() -> None:
    for boundary, zone in BOUNDARIES:
        before, at = (moment.astimezone(zone) for moment in (boundary - HOUR, boundary))
        assert at.utcoffset() != before.utcoffset() or at.year == before.year + 1
