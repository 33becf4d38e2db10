"""Series and sparklines out of buckets, beside a plain recount."""

import asyncio
import random
from datetime import UTC, datetime
from unittest.mock import AsyncMock

import pytest

from schemas.labels import ACTIONS
from schemas.windows import WINDOW_SECONDS, Window
from worker.aggregates.buckets import COLUMNS
from worker.aggregates.contribution import ACTION, MESSAGES
from worker.aggregates.keys import Keys
from worker.aggregates.reader import AggregateReader
from worker.aggregates.series import METRICS, SeriesError, plan_series, spark, spark_minutes
from worker.aggregates.windows import CoinHistory, Row, sentiment_index, span, total

NOW = 1_800_000_000 + 17 * 60 + 31.5
MINUTE = int(NOW) // 60


def made_up_rows(numbers: range, seed: int) -> dict[int, Row]:
    rng = random.Random(seed)
    return {n: [rng.randrange(50) for _ in range(COLUMNS)] for n in numbers if rng.random() < 0.6}


@pytest.mark.parametrize("window", ["1m", "5m", "15m", "1h", "4h", "24h", "7d"])
def test_every_point_is_the_sum_of_the_buckets_that_ended_by_it(window: Window) -> None:
    plan = plan_series(window, now=NOW)
    bucket = 60 if plan.by_minute else 3_600
    rows = made_up_rows(plan.buckets, seed=3)
    series = plan.read("BTC", ["messages", "sentiment_index", "action"], rows)
    assert len(series.times) > 20
    for n, time in enumerate(series.times):
        at = time.timestamp()
        last = at < int(NOW)  # all but the newest point end with a whole bucket
        end = int(at) // bucket if last else int(NOW) // bucket + 1
        inside = [rows[b] for b in range(end - WINDOW_SECONDS[window] // bucket, end) if b in rows]
        summed = [sum(column) for column in zip(*inside, strict=True)] or [0] * COLUMNS
        assert series.values["messages"][n] == summed[MESSAGES]
        assert series.values["sentiment_index"][n] == sentiment_index(summed)
        assert series.values["action.sell"][n] == summed[ACTION + ACTIONS.index("sell")]
        if last:
            assert end * bucket <= at  # nothing of later buckets: no look-ahead


@pytest.mark.parametrize("window", ["1m", "5m", "15m", "1h"])
def test_the_last_point_is_what_a_reader_of_now_sees(window: Window) -> None:
    plan = plan_series(window, now=NOW)
    rows = made_up_rows(plan.buckets, seed=4)
    series = plan.read("BTC", ["messages"], rows)
    history = CoinHistory(minutes=rows)
    assert series.values["messages"][-1] == total(history, span(window, MINUTE))[MESSAGES]


@pytest.mark.parametrize(("window", "last"), [("1h", -1), ("4h", -1), ("24h", 0), ("7d", 0)])
def test_a_short_window_by_the_hour_ends_with_a_whole_hour(window: Window, last: int) -> None:
    """Minutes into an hour, its newest point counted them alone, as a window of 1h."""
    days_ago = datetime.fromtimestamp(NOW - 2 * 86_400, UTC)
    plan = plan_series(window, since=days_ago, now=NOW)
    hour = int(NOW) // 3_600
    assert not plan.by_minute
    assert plan.points[-1][1] == hour + 1 + last


def test_hours_where_minutes_do_not_reach_and_a_sentence_where_nothing_does() -> None:
    days_ago = datetime.fromtimestamp(NOW - 3 * 86_400, UTC)
    plan = plan_series("1h", since=days_ago, now=NOW)
    assert not plan.by_minute
    assert plan.step % 3_600 == 0
    with pytest.raises(SeriesError, match="window of 1h or more"):
        plan_series("5m", since=days_ago, now=NOW)
    border = NOW // 3_600 * 3_600 - 24 * 3_600
    named = datetime.fromtimestamp(border, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    with pytest.raises(SeriesError, match=rf"multiples of 3600 s that far back: .* {named} or later"):
        plan_series("1h", since=days_ago, step=60, now=NOW)
    assert plan_series("1h", since=datetime.fromtimestamp(border, UTC), step=60, now=NOW).by_minute
    with pytest.raises(SeriesError, match=r"multiples of 3600 s for a window of 7d$"):
        plan_series("7d", step=60, now=NOW)
    with pytest.raises(SeriesError, match=r"multiples of 60 s$"):
        plan_series("1h", step=90, now=NOW)
    with pytest.raises(SeriesError, match="'2h' is unknown: there are 1m, 5m"):
        plan_series("2h", now=NOW)  # type: ignore[arg-type]
    with pytest.raises(SeriesError, match="at or after to"):
        plan_series("1h", since=datetime.fromtimestamp(NOW + 9, UTC), now=NOW)
    with pytest.raises(SeriesError, match="8 days"):
        plan_series("1h", until=datetime.fromtimestamp(NOW - 30 * 86_400, UTC), now=NOW)
    with pytest.raises(SeriesError, match="unknown"):
        plan.read("BTC", ["price"], {})
    old = plan_series("1h", since=datetime(2020, 1, 1, tzinfo=UTC), now=NOW)
    assert old.points[0][0] >= NOW - 8 * 86_400
    assert {"messages", "sentiment_index", "action", "emotion", "toxicity"} <= set(METRICS)


@pytest.mark.parametrize("seconds", [0.0, 0.5, 59.9, 1_000.0, 3_599.9])
@pytest.mark.parametrize("before", [0.0, 3.0, 59.0])
def test_a_day_ago_is_by_the_minute_however_long_the_command_took_to_start(
    seconds: float, before: float
) -> None:
    """Its from was a second beyond the border by the time that it was looked at."""
    now = NOW // 3_600 * 3_600 + seconds
    since = now - before - 86_400
    plan = plan_series("1h", since=datetime.fromtimestamp(since, UTC), step=60, now=now)
    assert plan.by_minute
    assert plan.points[0][0] - since < 120
    oldest_hour = plan.buckets.start // 60
    assert (oldest_hour + 26) * 3_600 > now, "its string of minutes has not expired"


def test_a_moment_that_the_minutes_do_not_reach_is_refused() -> None:
    """Zeros were the answer, as if nobody had said anything."""
    store = AsyncMock()
    reader = AggregateReader(store, Keys(), clock=lambda: NOW)

    def ask(window: str, hours: float) -> None:
        store.once.side_effect = ConnectionError("asked")
        asyncio.run(reader.window(window, datetime.fromtimestamp(NOW - hours * 3_600, UTC)))  # type: ignore[arg-type]

    for window, hours in (("24h", 1), ("4h", 21), ("1h", 24), ("1m", 24), ("7d", 24)):
        with pytest.raises(ConnectionError, match="asked"):
            ask(window, hours)
        with pytest.raises(SeriesError, match=f"too long ago: .* {window} can end {hours} h back at most"):
            ask(window, max(hours, 1) + 1.1)
    with pytest.raises(SeriesError, match="ahead of now"):
        ask("1m", -0.1)
    with pytest.raises(SeriesError, match="'2h' is unknown: there are 1m, 5m, 15m, 1h, 4h, 24h, 7d"):
        ask("2h", 0)
    with pytest.raises(SeriesError, match="24h can end 1 h back"):
        asyncio.run(reader.coin("BTC", datetime.fromtimestamp(NOW - 8_000, UTC)))


@pytest.mark.parametrize(("window", "points"), [("1m", 20), ("1h", 20), ("24h", 24), ("7d", 42)])
def test_a_sparkline_counts_every_message_of_its_time_once(window: Window, points: int) -> None:
    minutes = made_up_rows(spark_minutes(window, MINUTE), seed=5)
    hours = made_up_rows(range(MINUTE // 60 - 168, MINUTE // 60), seed=6)
    drawn = spark(window, CoinHistory(minutes=minutes, hours=hours), MINUTE)
    assert len(drawn.messages) == len(drawn.sentiment_index) == points
    counted = {"24h": range(MINUTE // 60 - 23, MINUTE // 60), "7d": range(MINUTE // 60 - 167, MINUTE // 60)}
    expected = sum(row[MESSAGES] for row in minutes.values())
    expected += sum(hours[n][MESSAGES] for n in counted.get(window, ()) if n in hours)
    assert sum(drawn.messages) == expected
