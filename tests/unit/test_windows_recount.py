"""Every metric of every window equals a plain recount of the signals."""

import random
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.windows import MARKET, WINDOWS
from tests.recount import RELEVANT_FROM, Recount
from tests.signals import make_signal, make_week
from worker.aggregates.buckets import CoinDelta, combine, fold
from worker.aggregates.contribution import contribution
from worker.aggregates.windows import CoinHistory, freshness, metrics, past_week, span, total

MOMENTS = (
    datetime(2026, 1, 1, 0, 0, 0, tzinfo=UTC),  # year boundary
    datetime(2025, 12, 31, 23, 59, 59, 999_000, tzinfo=UTC),
    datetime(2026, 3, 29, 1, 0, 30, tzinfo=UTC),  # clocks change in Europe
    datetime(2024, 2, 29, 12, 59, 0, tzinfo=UTC),  # the last minute of an hour: no partial hour is left
    datetime(2026, 7, 1, 12, 0, 59, 999_000, tzinfo=UTC),
)
EDGES = (
    0,
    1,
    59,
    60,
    61,
    299,
    300,
    3_599,
    3_600,
    14_340,
    14_400,
    86_340,
    86_400,
    25 * 3_600,
    604_800,
    691_200,
)


@st.composite
def moments(draw: st.DrawFn) -> datetime:
    base = draw(st.sampled_from(MOMENTS))
    return base + timedelta(milliseconds=draw(st.integers(-4_000_000, 4_000_000)))


@st.composite
def signal_lists(draw: st.DrawFn, now: datetime) -> list[dict[str, Any]]:
    """Few signals at the edges of windows and rules, and at times a whole week of them."""
    rng = random.Random(draw(st.integers(0, 2**32)))
    signals = make_week(now, 400, rng.randrange(2**32)) if draw(st.booleans()) else []
    edge = st.tuples(st.sampled_from(EDGES), st.integers(-1, 1), st.sampled_from((0, 0, 30, 90_000, 700_000)))
    for seconds, milliseconds, lag in draw(st.lists(edge, max_size=25)):
        published = now - timedelta(seconds=seconds, milliseconds=milliseconds)
        processed = min(now, published + timedelta(seconds=lag))
        signals.append(make_signal(len(signals), published, processed, rng))
    for ahead in draw(st.lists(st.sampled_from((1, 59, 60, 61, 1e9)), max_size=3)):
        signals.append(make_signal(len(signals), now + timedelta(seconds=ahead), now, rng))
    return signals


def histories(deltas: Iterable[dict[str, CoinDelta]]) -> dict[str, CoinHistory]:
    """What stands in Redis after these batches, without Redis."""
    found: dict[str, CoinHistory] = {}
    for batch in deltas:
        for symbol, delta in batch.items():
            before = found.get(symbol, CoinHistory())
            minutes, hours = dict(before.minutes), dict(before.hours)
            for rows, added in ((minutes, delta.minutes), (hours, delta.hours)):
                for number, row in added.items():
                    rows[number] = combine(list(rows[number]), row) if number in rows else row
            first = [t for t in (before.first, delta.first) if t is not None]
            newest = [t for t in (before.newest, delta.newest) if t is not None]
            found[symbol] = CoinHistory(
                minutes, hours, {}, min(first, default=None), max(newest, default=None)
            )
    return found


@given(st.data())
@settings(max_examples=80, deadline=None)
def test_windows_equal_a_recount(data: st.DataObject) -> None:
    now = data.draw(moments())
    signals = data.draw(signal_lists(now))
    data.draw(st.randoms(use_true_random=False)).shuffle(signals)
    cut = data.draw(st.integers(0, len(signals)))
    records = [(n, contribution(signal, RELEVANT_FROM)) for n, signal in enumerate(signals)]
    found = histories(fold({("signals", 0): part}, {}) for part in (records[:cut], records[cut:]))

    recount = Recount(signals, now)
    minute = int(now.timestamp()) // 60
    market = found.get(MARKET, CoinHistory())
    at_ms = (now - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(milliseconds=1)
    for symbol in recount.symbols:
        history = found.get(symbol, CoinHistory())
        for window in WINDOWS:
            part = span(window, minute)
            result = metrics(
                window,
                total(history, part),
                authors=_authors(recount, symbol, window),
                past=past_week(history, minute),
                market_messages=total(market, part)[0],
            )
            recount.check(symbol, window, result)
        fresh = recount.freshness(symbol)
        assert (fresh is None) == (freshness(history, at_ms) is None)
        if fresh is not None:
            assert abs((freshness(history, at_ms) or 0.0) - fresh) < 0.002


def _authors(recount: Recount, symbol: str, window: Any) -> int:
    """Authors are counted by Redis alone, so here they are taken as right."""
    rows = [s for t, s in recount.by_symbol.get(symbol, []) if recount._inside(t, window)]
    return len({s["author_hash"] for s in rows if s["author_hash"]})
