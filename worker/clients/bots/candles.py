"""Rolling windows beside candles without look-ahead: which point a candle may see, and what was read."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from schemas.aggregates import Series
from schemas.windows import WINDOW_SECONDS, Window
from worker.aggregates.series import METRICS
from worker.errors import ConfigurationError

MINUTE: Final = 60
HOUR: Final = 3_600
_UNITS: Final = {"m": MINUTE, "h": HOUR, "d": 24 * HOUR, "w": 7 * 24 * HOUR}
_MINUTES_KEPT: Final = 25 * HOUR
_HOURS_KEPT: Final = 8 * 24 * HOUR
_MARGIN: Final = 3 * MINUTE
"""The server's clock may be ahead of ours, and minutes go while a request is on its way."""

DEFAULT_DELAY: Final = 60
"""Seconds. A message of the last second before a close is classified and counted after it: a live bot
could not have seen it, so a back test must not either."""

Values = tuple[float | None, ...]


def timeframe_seconds(timeframe: str) -> int:
    """``5m``, ``1h``, ``1d`` in seconds.

    Raises:
        ConfigurationError: it is not written so.
    """
    found = re.fullmatch(r"([1-9]\d{0,3})([mhdw])", timeframe)
    if found is None:
        raise ConfigurationError(f"The timeframe {timeframe!r} is not understood: write it as 5m, 1h or 1d.")
    return int(found[1]) * _UNITS[found[2]]


def point_of(close: int, delay: int = DEFAULT_DELAY) -> int:
    """The point of a series that a bot can read at ``close``: the last full minute ``delay`` s before."""
    return (close - delay) // MINUTE * MINUTE


def column_names(metrics: Sequence[str]) -> tuple[str, ...]:
    """The columns that some metrics give, as `worker.aggregates.series.METRICS` names them.

    Raises:
        ConfigurationError: a metric is unknown.
    """
    unknown = next((name for name in metrics if name not in METRICS), None)
    if unknown is not None:
        raise ConfigurationError(f"The metric {unknown!r} is unknown: there are {', '.join(METRICS)}.")
    return tuple(column for name in metrics for column in METRICS[name])


@dataclass(frozen=True, slots=True)
class Reading:
    """A series to ask for; seconds since 1970."""

    since: int
    until: int
    step: int


class SeriesMemory:
    """Points of one coin as they were first read: what a bot has seen once never changes behind it.

    Minutes are kept for 25 h on the server, so candles further back, and all with a window that is
    longer, see the last full hour.
    """

    def __init__(self, metrics: Sequence[str], window: Window) -> None:
        self.columns = column_names(metrics)
        self._length = WINDOW_SECONDS[window]
        self._minutes: dict[int, Values] = {}
        self._hours: dict[int, Values] = {}
        self._read: tuple[int, int] | None = None
        """First and last minute that was asked for."""

    def missing(self, first: int, last: int, now: float) -> list[Reading]:
        """What has to be read for the points from ``first`` to ``last``, both whole minutes."""
        readings = []
        reach = (int(now) - _MINUTES_KEPT + self._length + _MARGIN) // MINUTE * MINUTE
        start, end = max(first, reach), min(last, int(now) // MINUTE * MINUTE)
        parts = [(start, end)]
        if self._read is not None:
            # Without a hole: what lies between two readings counts as read from then on.
            parts = [(start, min(end, self._read[0] - MINUTE)), (max(reach, self._read[1] + MINUTE), end)]
        for since, until in parts:
            if since <= until:
                readings.append(Reading(since - MINUTE, until, MINUTE))  # a series has two points at least
        hours = self._missing_hours(first, min(reach, end + MINUTE), now)
        if hours:
            readings.append(Reading(hours[0] - HOUR, hours[-1], HOUR))
        return readings

    def _missing_hours(self, first: int, before: int, now: float) -> list[int]:
        """Hours that the server has for points which are known neither by the minute nor by the hour."""
        if self._length < HOUR:
            return []
        oldest = -(-(int(now) - _HOURS_KEPT + self._length + _MARGIN) // HOUR) * HOUR
        points = (point for point in range(max(first, oldest), before, MINUTE) if point not in self._minutes)
        return sorted({point // HOUR * HOUR for point in points} - self._hours.keys())

    def add(self, reading: Reading, series: Series) -> None:
        """Take an answer; the point at the present, whose bucket still grows, is left out."""
        kept = self._minutes if reading.step == MINUTE else self._hours
        rows = zip(*(series.values[name] for name in self.columns), strict=True)
        for time, row in zip(series.times, rows, strict=True):
            point = int(time.timestamp())
            if point % reading.step == 0 and point <= reading.until:
                kept.setdefault(point, row)
        if reading.step == HOUR:
            return
        if self._read is None:
            self._read = reading.since + MINUTE, reading.until
        else:
            self._read = min(self._read[0], reading.since + MINUTE), max(self._read[1], reading.until)

    def forget_before(self, point: int) -> None:
        """Drop what no candle needs any more."""
        for kept in (self._minutes, self._hours):
            for old in [known for known in kept if known < point - HOUR]:
                del kept[old]

    def at(self, point: int) -> Values:
        """The values at a point; nulls where nothing was read."""
        found = self._minutes.get(point) or self._hours.get(point // HOUR * HOUR)
        return found or (None,) * len(self.columns)
