"""Buckets to the metrics of every rolling window: pure, no I/O. README.md has the formulas as a table."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, TypeVar

from schemas.aggregates import WindowMetrics
from schemas.labels import ACTIONS, EMOTIONS, POLARITY, SENTIMENTS
from schemas.windows import WINDOW_SECONDS, Window
from worker.aggregates.buckets import (
    CERTAINTY,
    COLUMNS,
    MINUTES_AN_HOUR,
    NEWEST,
    RELEVANCE,
    TOXICITY,
    WEIGHT,
    WEIGHTED_POLARITY,
)
from worker.aggregates.contribution import ACTION, EMOTION, LATE, MESSAGES, MILLI, SENTIMENT

WEEK_HOURS: Final = 168
_HOUR_MS: Final = 3_600_000
LEAST_HOURS: Final = 24
"""Fewer hours than this make no past to compare with: the z-scores are null."""

_POLARITIES: Final = tuple(POLARITY[name] for name in SENTIMENTS)
_BUY, _SELL, _AVOID = (ACTION + ACTIONS.index(name) for name in ("buy", "sell", "avoid"))

Row = Sequence[int]
Label = TypeVar("Label", bound=str)


@dataclass(frozen=True, slots=True)
class Span:
    """The buckets whose sum is a window: minutes and whole hours, by number since 1970."""

    minutes: tuple[range, ...]
    hours: range

    def every_minute(self) -> Iterable[int]:
        """All minute numbers."""
        return (minute for part in self.minutes for minute in part)


@dataclass(frozen=True, slots=True)
class CoinHistory:
    """What a coin has in Redis, as far as it was read; buckets without content are absent."""

    minutes: Mapping[int, Row] = field(default_factory=dict)
    hours: Mapping[int, Row] = field(default_factory=dict)
    authors: Mapping[Window, int] = field(default_factory=dict)
    first: int | None = None
    """Event time of the oldest signal ever, ms."""
    newest: int | None = None


def span(window: Window, minute: int) -> Span:
    """The buckets of ``window`` ending in ``minute``, which is included as far as it has come.

    Up to an hour: the minutes ``minute - W + 1`` to ``minute``. 4h and 24h: the same minutes,
    whole past hours among them read from hour buckets. 7d: the current hour up to ``minute``
    and the 167 hour buckets before it. The current hour is always read in minutes, so that a
    message from the future does not count yet.
    """
    length = WINDOW_SECONDS[window] // 60
    current_hour = minute // MINUTES_AN_HOUR
    current = range(current_hour * MINUTES_AN_HOUR, minute + 1)
    if length <= MINUTES_AN_HOUR:
        return Span((range(minute - length + 1, minute + 1),), range(0))
    if window == "7d":
        return Span((current,), range(current_hour - WEEK_HOURS + 1, current_hour))
    start = minute - length + 1
    first_whole_hour = -(-start // MINUTES_AN_HOUR)
    oldest = range(start, first_whole_hour * MINUTES_AN_HOUR)
    return Span((oldest, current), range(first_whole_hour, current_hour))


def past_hours(minute: int) -> range:
    """The 168 hours before the current one."""
    hour = minute // MINUTES_AN_HOUR
    return range(hour - WEEK_HOURS, hour)


def total(history: CoinHistory, part: Span) -> Row:
    """Sum of a window's buckets; NEWEST holds the maximum."""
    rows = [row for n in part.every_minute() if (row := history.minutes.get(n)) is not None]
    rows += [row for n in part.hours if (row := history.hours.get(n)) is not None]
    if not rows:
        return [0] * COLUMNS
    columns = list(zip(*rows, strict=True))
    return [*map(sum, columns[:NEWEST]), max(columns[NEWEST])]


def metrics(
    window: Window, summed: Row, *, authors: int, past: "PastWeek", market_messages: int
) -> WindowMetrics:
    """The metrics of one window; README.md says each in a formula.

    Args:
        window: which.
        summed: its `total`.
        authors: unique authors, as Redis counts them.
        past: what to compare with.
        market_messages: messages of MARKET in the same window.
    """
    messages = summed[MESSAGES]
    sentiment = summed[SENTIMENT : SENTIMENT + len(SENTIMENTS)]
    action = summed[ACTION : ACTION + len(ACTIONS)]
    emotion = summed[EMOTION : EMOTION + len(EMOTIONS)]
    index = sentiment_index(summed)
    acting = summed[_BUY] + summed[_SELL] + summed[_AVOID]
    rate = messages * 3_600 / WINDOW_SECONDS[window]
    week = window == "7d"
    return WindowMetrics(
        window=window,
        messages=messages,
        unique_authors=authors,
        sentiment=dict(zip(SENTIMENTS, sentiment, strict=True)),
        action=dict(zip(ACTIONS, action, strict=True)),
        emotion=dict(zip(EMOTIONS, emotion, strict=True)),
        sentiment_share=_shares(SENTIMENTS, sentiment, messages),
        action_share=_shares(ACTIONS, action, messages),
        emotion_share=_shares(EMOTIONS, emotion, messages),
        sentiment_index=index,
        action_balance=(summed[_BUY] - summed[_SELL] - summed[_AVOID]) / acting if acting else None,
        certainty=_mean(summed[CERTAINTY], messages),
        relevance=_mean(summed[RELEVANCE], messages),
        toxicity=_mean(summed[TOXICITY], messages),
        dispersion=dispersion(sentiment),
        dominance=messages / market_messages if market_messages else None,
        zscore_index=None if week or index is None else zscore(index, past.index),
        zscore_volume=None if week else zscore(rate, past.volume),
        late=summed[LATE],
    )


def sentiment_index(row: Row) -> float | None:
    """Sum of weight x polarity over sum of weight; None without weight."""
    return row[WEIGHTED_POLARITY] / (2 * row[WEIGHT]) if row[WEIGHT] else None


def dispersion(counts: Sequence[int]) -> float | None:
    """Population standard deviation of polarity, from the five sentiment counts; None without messages."""
    messages = sum(counts)
    if not messages:
        return None
    mean = math.fsum(n * p for n, p in zip(counts, _POLARITIES, strict=True)) / messages
    return math.sqrt(
        math.fsum(n * (p - mean) ** 2 for n, p in zip(counts, _POLARITIES, strict=True)) / messages
    )


@dataclass(frozen=True, slots=True)
class Norm:
    """Mean and population standard deviation of a coin's hours."""

    mean: float
    deviation: float


@dataclass(frozen=True, slots=True)
class PastWeek:
    """A coin's own 168 hours before the current one; None with fewer than 24, or where they do not differ."""

    index: Norm | None
    """Sentiment index, of the hours that have one."""
    volume: Norm | None
    """Messages; hours without any count as 0 since the coin was first seen."""


def past_week(history: CoinHistory, minute: int) -> PastWeek:
    """What the z-scores of a moment compare with."""
    rows = [(hour, history.hours.get(hour)) for hour in past_hours(minute)]
    indices = [sentiment_index(row) for _, row in rows if row is not None]
    first_hour = math.inf if history.first is None else history.first // _HOUR_MS
    volumes = [row[MESSAGES] if row is not None else 0 for hour, row in rows if hour >= first_hour]
    return PastWeek(_norm([index for index in indices if index is not None]), _norm(volumes))


def zscore(value: float, norm: Norm | None) -> float | None:
    """(value - mean) / deviation; None where there is nothing to compare with."""
    return None if norm is None else (value - norm.mean) / norm.deviation


def _norm(values: Sequence[float]) -> Norm | None:
    if len(values) < LEAST_HOURS or min(values) == max(values):
        return None
    mean = math.fsum(values) / len(values)
    return Norm(mean, math.sqrt(math.fsum((value - mean) ** 2 for value in values) / len(values)))


def freshness(history: CoinHistory, at_ms: int) -> float | None:
    """Seconds from the newest message to ``at_ms``; None where none is known.

    Messages of minutes to come do not count yet; one of the current minute that is ahead gives 0.
    """
    end = (at_ms // 60_000 + 1) * 60_000
    times = [history.newest] if history.newest is not None else []
    if history.newest is not None and history.newest >= end:
        rows = (row for rows in (history.minutes, history.hours) for row in rows.values())
        times = [row[NEWEST] for row in rows if row[MESSAGES]]
    past = [newest for newest in times if newest < end]
    return max(0, at_ms - max(past)) / 1_000 if past else None


def _shares(labels: Sequence[Label], counts: Sequence[int], messages: int) -> dict[Label, float] | None:
    if not messages:
        return None
    return {label: count / messages for label, count in zip(labels, counts, strict=True)}


def _mean(thousandths: int, messages: int) -> float | None:
    return thousandths / MILLI / messages if messages else None
