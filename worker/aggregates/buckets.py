"""Signals summed per coin and bucket: pure integer arithmetic, no I/O."""

import struct
from collections.abc import Collection, Iterable, Mapping
from typing import Final

from worker.aggregates.contribution import LATE, Contribution

Partition = tuple[str, int]
"""Topic and partition number."""

Row = list[int]
"""The columns of one bucket, in the order of `ROW`."""

COUNTS: Final = LATE + 1
CERTAINTY, RELEVANCE, TOXICITY, WEIGHT, WEIGHTED_POLARITY, NEWEST = range(COUNTS, COUNTS + 6)
COLUMNS: Final = NEWEST + 1

ROW: Final = struct.Struct(f"<{COUNTS}I6q")
"""A bucket in Redis: little-endian, 20 counts of 4 bytes (messages, 5 sentiments, 6 actions, 7 emotions,
late), five sums of 8 bytes (certainty, relevance, toxicity in thousandths; weight in millionths;
weight x twice the polarity) and the newest event time in ms. All zero where nothing came."""

MINUTES_AN_HOUR: Final = 60
HOURS_A_DAY: Final = 24


class CoinDelta:
    """What a batch adds to one coin."""

    __slots__ = ("fences", "first", "hour_authors", "hours", "minute_authors", "minutes", "newest")

    def __init__(self) -> None:
        self.fences: dict[Partition, int] = {}
        """Highest offset that is summed here, per partition."""
        self.minutes: dict[int, Row] = {}
        self.hours: dict[int, Row] = {}
        """Only what is in no minute bucket, until `close` adds the minutes."""
        self.minute_authors: dict[int, set[str]] = {}
        self.hour_authors: dict[int, set[str]] = {}
        self.first: int | None = None
        """Oldest and newest event time, ms; None where all signals are late."""
        self.newest: int | None = None

    def close(self) -> None:
        """Add the minute buckets into their hours; call once, after the last signal."""
        for minute, row in self.minutes.items():
            hour = minute // MINUTES_AN_HOUR
            total = self.hours.get(hour)
            self.hours[hour] = list(row) if total is None else combine(total, row)
        for minute, authors in self.minute_authors.items():
            self.hour_authors.setdefault(minute // MINUTES_AN_HOUR, set()).update(authors)


def combine(one: Row, other: Row) -> Row:
    """Sum of two buckets; of the newest event times the later one."""
    total = [a + b for a, b in zip(one, other, strict=True)]
    total[NEWEST] = max(one[NEWEST], other[NEWEST])
    return total


def fold(
    batch: Mapping[Partition, Iterable[tuple[int, Contribution]]],
    fences: Mapping[Partition, Mapping[str, int]],
    only: Collection[str] | None = None,
) -> dict[str, CoinDelta]:
    """Sum a batch per coin, leaving out what the coin's fence says is applied.

    Args:
        batch: records of each partition, in offset order.
        fences: per partition and symbol, the last applied offset.
        only: symbols to sum; all where None.
    """
    deltas: dict[str, CoinDelta] = {}
    nothing: dict[str, int] = {}
    for partition, records in batch.items():
        known = fences.get(partition, nothing)
        for offset, signal in records:
            for symbol in signal.symbols:
                if known.get(symbol, -1) >= offset or (only is not None and symbol not in only):
                    continue
                delta = deltas.get(symbol)
                if delta is None:
                    delta = deltas[symbol] = CoinDelta()
                delta.fences[partition] = offset
                if signal.columns:
                    _add(delta, signal)
    for delta in deltas.values():
        delta.close()
    return deltas


def _add(delta: CoinDelta, signal: Contribution) -> None:
    _, _, minute, has_minute, columns, certainty, relevance, toxicity, weight, polarity, newest, author = (
        signal
    )
    if has_minute:
        key, rows, authors = minute, delta.minutes, delta.minute_authors
    else:
        key, rows, authors = minute // MINUTES_AN_HOUR, delta.hours, delta.hour_authors
    row = rows.get(key)
    if row is None:
        row = rows[key] = [0] * COLUMNS
    for column in columns:
        row[column] += 1
    if newest < 0:  # late: counted, and nothing else
        return
    row[CERTAINTY] += certainty
    row[RELEVANCE] += relevance
    row[TOXICITY] += toxicity
    row[WEIGHT] += weight
    row[WEIGHTED_POLARITY] += polarity
    row[NEWEST] = max(row[NEWEST], newest)
    if delta.first is None or newest < delta.first:
        delta.first = newest
    if delta.newest is None or newest > delta.newest:
        delta.newest = newest
    if author is not None:
        try:
            authors[key].add(author)
        except KeyError:
            authors[key] = {author}
