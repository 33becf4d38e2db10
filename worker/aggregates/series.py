"""Windows over time out of buckets: pure, no I/O."""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import accumulate
from typing import Final

from schemas.aggregates import Series, Spark
from schemas.labels import ACTIONS, EMOTIONS, SENTIMENTS
from schemas.windows import WINDOW_SECONDS, WINDOWS, Window
from worker.aggregates.buckets import CERTAINTY, MINUTES_AN_HOUR, NEWEST, RELEVANCE, TOXICITY
from worker.aggregates.contribution import (
    ACTION,
    EMOTION,
    HOUR_BUCKETS_MS,
    MESSAGES,
    MILLI,
    MINUTE_BUCKETS_MS,
    SENTIMENT,
)
from worker.aggregates.windows import CoinHistory, Row, dispersion, sentiment_index, span

_MINUTE: Final = 60
_HOUR: Final = 3_600
_MINUTES_REACH: Final = MINUTE_BUCKETS_MS // 1_000
_HOURS_REACH: Final = HOUR_BUCKETS_MS // 1_000
_GRACE: Final = _MINUTE
"""Seconds by which a ``since`` may miss the oldest minute: it was worked out before the question came."""
_AHEAD: Final = _MINUTE
"""Seconds by which a clock may be ahead of ours."""
_MOST_POINTS: Final = 2_000
_LEAST_HOURS: Final = 24
"""Of a window by the hour whose newest hour may still grow: two minutes into an hour, a window of 1h would
count them alone, and every chart end in a plunge."""
_WANTED_POINTS: Final = 200
_STEPS: Final = tuple(_MINUTE * n for n in (1, 2, 5, 10, 15, 30, 60, 120, 180, 360, 720, 1440))
_DEFAULT_REACH: Final[dict[Window, int]] = {
    "1m": 2 * _HOUR,
    "5m": 6 * _HOUR,
    "15m": 12 * _HOUR,
    "1h": 23 * _HOUR,
    "4h": 20 * _HOUR,
    "24h": 6 * 24 * _HOUR,
    "7d": 24 * _HOUR,
}
_SPARK_MINUTES: Final = 60


class SeriesError(ValueError):
    """What was asked for cannot be read from the buckets; the message says what can."""


def check_window(window: str) -> None:
    """Raise SeriesError where there is no such window."""
    if window not in WINDOWS:
        raise SeriesError(f"the window {window!r} is unknown: there are {', '.join(WINDOWS)}")


def check_moment(windows: Iterable[Window], at: float, now: float) -> None:
    """Raise SeriesError where the buckets cannot tell these windows as they ended at ``at``.

    Args:
        windows: all of them are asked for.
        at: seconds since 1970.
        now: the same, of the present.
    """
    if at > now + _AHEAD:
        raise SeriesError(f"at ({_rfc3339(at)}) is ahead of now")
    for window in windows:
        oldest = next(iter(span(window, int(at) // _MINUTE).every_minute()))
        if oldest * _MINUTE + _MINUTES_REACH <= now:
            hours = 24 if window == "7d" else (_MINUTES_REACH - WINDOW_SECONDS[window]) // _HOUR
            raise SeriesError(
                f"at ({_rfc3339(at)}) is too long ago: minutes are kept for 25 h, so a window of {window} "
                f"can end {hours} h back at most"
            )


def _mean(column: int) -> Callable[[Row], float | None]:
    return lambda row: row[column] / MILLI / row[MESSAGES] if row[MESSAGES] else None


def _count(column: int) -> Callable[[Row], float | None]:
    return lambda row: row[column]


def _action_balance(row: Row) -> float | None:
    buy, sell, avoid = (row[ACTION + ACTIONS.index(name)] for name in ("buy", "sell", "avoid"))
    acting = buy + sell + avoid
    return (buy - sell - avoid) / acting if acting else None


_Columns = dict[str, Callable[[Row], float | None]]

METRICS: Final[dict[str, _Columns]] = {
    "messages": {"messages": _count(MESSAGES)},
    "sentiment_index": {"sentiment_index": sentiment_index},
    "action_balance": {"action_balance": _action_balance},
    "certainty": {"certainty": _mean(CERTAINTY)},
    "relevance": {"relevance": _mean(RELEVANCE)},
    "toxicity": {"toxicity": _mean(TOXICITY)},
    "dispersion": {"dispersion": lambda row: dispersion(row[SENTIMENT : SENTIMENT + len(SENTIMENTS)])},
    "sentiment": {f"sentiment.{name}": _count(SENTIMENT + n) for n, name in enumerate(SENTIMENTS)},
    "action": {f"action.{name}": _count(ACTION + n) for n, name in enumerate(ACTIONS)},
    "emotion": {f"emotion.{name}": _count(EMOTION + n) for n, name in enumerate(EMOTIONS)},
}
"""What a series may hold, and the columns that each gives."""


@dataclass(frozen=True, slots=True)
class SeriesPlan:
    """Which buckets each point sums."""

    window: Window
    step: int
    by_minute: bool
    points: Sequence[tuple[int, int]]
    """Time of the point, in seconds since 1970, and the bucket before which it ends."""
    length: int
    """Buckets of the window."""

    @property
    def buckets(self) -> range:
        """Every bucket that is needed, by number."""
        if not self.points:
            return range(0)
        return range(self.points[0][1] - self.length, self.points[-1][1])

    def read(self, symbol: str, metrics: Sequence[str], rows: Mapping[int, Row]) -> Series:
        """The series, from those of its buckets that have content."""
        unknown = next((name for name in metrics if name not in METRICS), None)
        if unknown is not None:
            raise SeriesError(f"the metric {unknown!r} is unknown: there are {', '.join(METRICS)}")
        columns = {key: get for name in metrics for key, get in METRICS[name].items()}
        first = self.buckets.start
        none = (0,) * NEWEST
        filled = (rows[n][:NEWEST] if n in rows else none for n in self.buckets)
        # Sums up to each bucket, so that a window is one difference instead of up to 1440 rows.
        sums = list(accumulate(filled, lambda a, b: tuple(map(int.__add__, a, b)), initial=none))
        totals = [
            list(map(int.__sub__, sums[end - first], sums[end - self.length - first]))
            for _, end in self.points
        ]
        return Series(
            symbol=symbol,
            window=self.window,
            step=self.step,
            times=[datetime.fromtimestamp(at, UTC) for at, _ in self.points],
            values={key: [get(row) for row in totals] for key, get in columns.items()},
        )


def plan_series(
    window: Window,
    *,
    since: datetime | None = None,
    until: datetime | None = None,
    step: int | None = None,
    now: float | None = None,
) -> SeriesPlan:
    """Points from ``since`` to ``until``; minute buckets where they reach, hour buckets further back.

    ``since`` is moved up to what the buckets hold: a missing bucket would look like silence. The present is
    a point too, where the bucket that still grows is a small part of the window.

    Raises:
        SeriesError: there is no such window, the step or window is finer than the buckets of that time, or
            too many points.
    """
    check_window(window)
    now = time.time() if now is None else now
    length = WINDOW_SECONDS[window]
    end = min(now, _seconds(until)) if until is not None else now
    start = _seconds(since) if since is not None else end - _DEFAULT_REACH[window]
    if start >= end:
        raise SeriesError("from lies at or after to, or in the future")
    # Minutes go by the hour, so the oldest there is up to an hour older than their reach.
    oldest_minutes = now // _HOUR * _HOUR - _MINUTES_REACH + length
    by_minute = start >= oldest_minutes - _GRACE
    if by_minute:
        start = max(start, oldest_minutes)
    bucket = _MINUTE if by_minute else _HOUR
    if not by_minute:
        start = max(start, now - _HOURS_REACH + length)
        if start >= end:
            raise SeriesError("the buckets do not reach back that far: hours are kept for 8 days")
        if length < _HOUR:
            raise SeriesError(
                f"minutes are kept for 25 h, so a window of {window} cannot begin at that from: "
                f"take a from of {_rfc3339(oldest_minutes)} or later, or a window of 1h or more"
            )
    if step is None:
        fitting = [s for s in _STEPS if s % bucket == 0]
        step = next((s for s in fitting if (end - start) / s <= _WANTED_POINTS), fitting[-1])
    if step <= 0 or step % bucket:
        message = f"step is whole multiples of {bucket} s"
        if not by_minute and oldest_minutes >= end:
            message += f" for a window of {window}"
        elif not by_minute:
            message += f" that far back: take a from of {_rfc3339(oldest_minutes)} or later for whole minutes"
        raise SeriesError(message)
    if (end - start) / step > _MOST_POINTS:
        raise SeriesError(f"that makes more than {_MOST_POINTS} points: take a longer step")
    first, last = -(-int(start) // step), int(end) // step
    points = [(n * step, n * step // bucket) for n in range(first, last + 1)]
    current = int(now) // bucket
    told = by_minute or length >= _LEAST_HOURS * _HOUR
    if told and int(end) // bucket == current and (not points or points[-1][0] < int(end)):
        points.append((int(end), current + 1))  # the present: its bucket still grows
    return SeriesPlan(window, step, by_minute, points, length // bucket)


def spark_minutes(window: Window, minute: int) -> range:
    """The minutes that `spark` looks at beside hours."""
    if WINDOW_SECONDS[window] <= _HOUR:
        return range(minute - _SPARK_MINUTES + 1, minute + 1)
    return range(minute // MINUTES_AN_HOUR * MINUTES_AN_HOUR, minute + 1)


def spark(window: Window, history: CoinHistory, minute: int) -> Spark:
    """The last hour in 3 minutes a point; for 4h and 24h the last day by hour, for 7d the week by 4 hours."""
    hour = minute // MINUTES_AN_HOUR
    minutes = spark_minutes(window, minute)
    if WINDOW_SECONDS[window] <= _HOUR:
        step, parts = 3 * _MINUTE, [_rows(history.minutes, minutes[n : n + 3]) for n in range(0, 60, 3)]
    else:
        size, count = (4, 42) if window == "7d" else (1, 24)
        step = size * _HOUR
        before = range(hour - size * count + 1, hour)
        parts = [_rows(history.hours, before[n : n + size]) for n in range(0, size * count, size)]
        parts[-1] += _rows(history.minutes, minutes)
    sums = [[sum(column) for column in zip(*rows, strict=True)] for rows in parts]
    return Spark(
        step=step,
        messages=[row[MESSAGES] if row else 0 for row in sums],
        sentiment_index=[sentiment_index(row) if row else None for row in sums],
    )


def _rows(buckets: Mapping[int, Row], numbers: range) -> list[Row]:
    return [buckets[n] for n in numbers if n in buckets]


def _rfc3339(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def _seconds(moment: datetime) -> float:
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
