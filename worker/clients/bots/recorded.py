"""Recorded signals as rolling windows beside candles, for back tests: only what was known at each close."""

import gzip
import zlib
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from itertools import accumulate
from pathlib import Path
from typing import Final

from pydantic import ValidationError

from schemas.signals import CryptoSignal
from schemas.windows import WINDOW_SECONDS, Window
from worker.aggregates.buckets import CERTAINTY, NEWEST, RELEVANCE, TOXICITY, WEIGHT, WEIGHTED_POLARITY
from worker.aggregates.contribution import contribution
from worker.aggregates.series import METRICS
from worker.clients.bots.candles import DEFAULT_DELAY, MINUTE, Values
from worker.errors import ConfigurationError

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_RELEVANT_FROM: Final = 0.4

_Row = tuple[int, ...]
_Event = tuple[float, _Row]
_NOTHING: Final[_Row] = (0,) * NEWEST


class RecordedSignals:
    """The signals of one coin, in any order; repeats (by source and id) count once, as the first was.

    Args:
        signals: recorded ones; those of other coins are left out.
        symbol: the coin, or ``"MARKET"``.
        relevant_from: relevance from which MARKET counts a signal.
    """

    def __init__(
        self, signals: Iterable[CryptoSignal], symbol: str, relevant_from: float = _RELEVANT_FROM
    ) -> None:
        self._events: list[tuple[float, int, _Row]] = []
        seen: set[tuple[str, str]] = set()
        for signal in sorted(signals, key=lambda one: one.processed_at):
            part = contribution(signal, relevant_from)
            identity = signal.source, signal.id
            if symbol not in part.symbols or part.newest < 0 or identity in seen:
                continue
            seen.add(identity)
            row = [0] * NEWEST
            for column in part.columns:
                row[column] = 1
            row[CERTAINTY], row[RELEVANCE], row[TOXICITY] = part.certainty, part.relevance, part.toxicity
            row[WEIGHT], row[WEIGHTED_POLARITY] = part.weight, part.weighted_polarity
            known = (signal.processed_at - _EPOCH).total_seconds()
            self._events.append((known, part.minute * MINUTE, tuple(row)))

    def at(
        self, closes: Sequence[int], metrics: Sequence[str], window: Window, delay: int = DEFAULT_DELAY
    ) -> list[Values]:
        """The columns of ``metrics`` at each close, as a bot that ran then would have read them.

        A signal counts once it was processed and its minute was over for ``delay`` seconds, for
        as long as the window: the same windows that `point_of` picks from a live series.

        Args:
            closes: seconds since 1970, ascending.
            metrics: names in `worker.aggregates.series.METRICS`.
            window: the rolling window.
            delay: seconds.
        """
        length = WINDOW_SECONDS[window]
        enters: list[_Event] = []
        leaves: list[_Event] = []
        for known, minute, row in self._events:
            over = minute + MINUTE + delay
            entry, leave = max(known, over), over + length
            if entry < leave:
                enters.append((entry, row))
                leaves.append((leave, row))
        came, gone = _sums(enters, closes), _sums(leaves, closes)
        columns = [get for name in metrics for get in METRICS[name].values()]
        totals = (tuple(map(int.__sub__, a, b)) for a, b in zip(came, gone, strict=True))
        return [tuple(get(total) for get in columns) for total in totals]


def read_signals(file: Path) -> Iterator[CryptoSignal]:
    """Signals of a JSONL file, also ``.gz``, such as ``kbert watch --signals --json`` writes.

    Raises:
        ConfigurationError: it cannot be read, or a line is no signal; the message names it.
    """
    opened = gzip.open if file.suffix == ".gz" else open
    number = 0
    try:
        with opened(file, "rb") as lines:
            for line in lines:
                number += 1
                if line.strip():
                    yield CryptoSignal.model_validate_json(line)
    except (OSError, EOFError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or error
        raise ConfigurationError(f"The signals {file} cannot be read: {reason}.") from error
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise ConfigurationError(f"The signals {file}, line {number}: {first['msg']}.") from error


def _sums(events: list[_Event], closes: Sequence[int]) -> Iterator[_Row]:
    """The sum of everything that happened by each close."""
    events.sort(key=lambda event: event[0])
    running = accumulate((row for _, row in events), lambda a, b: tuple(map(int.__add__, a, b)))
    total, place = _NOTHING, 0
    for close in closes:
        while place < len(events) and events[place][0] <= close:
            total = next(running)
            place += 1
        yield total
