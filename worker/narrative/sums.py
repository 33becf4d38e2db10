"""What a signal adds to its month: integers, so that the order of adding plays no role."""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from math import inf
from typing import Any, Final

from pydantic import ValidationError

from schemas.signals import TrafficSignal
from worker.json_object import json_object
from worker.narrative.months import month_of

PROBABILITY_UNITS: Final = 1_000
"""Probabilities are summed as thousandths."""

FIRST_YEAR: Final = 1980
LAST_YEAR: Final = 2100
"""An article outside these years has no real date (a zero time is the year 1 or 1970), and each one would
put a row of every month up to it into the index for good."""

IN_FUTURE: Final = "published_at lies in the future"
CLOCK_SKEW: Final = 86_400.0
"""Seconds. Clocks that differ by minutes tell the right month: at 60 s every article of a producer whose
clock was 61 s ahead would be missing, and nobody could bring it back."""


class RejectedSignalError(ValueError):
    """Not a traffic signal."""


@dataclass(frozen=True, slots=True)
class Sums:
    """Articles, those with label 1, and the probabilities of label 1 in thousandths."""

    articles: int = 0
    negatives: int = 0
    probability: int = 0

    def __add__(self, other: "Sums") -> "Sums":
        return Sums(
            self.articles + other.articles,
            self.negatives + other.negatives,
            self.probability + other.probability,
        )


MonthlySums = Mapping[str, Mapping[str, Sums]]
"""Month -> source -> sums."""


@dataclass(frozen=True, slots=True)
class Contribution:
    """One signal's part of the index."""

    month: str
    source: str
    sums: Sums
    id_hash: int
    """Of source and id: two newswires number their articles alike."""


def contribution(signal: bytes | Mapping[str, Any], max_future: float = inf) -> Contribution:
    """What one signal adds, as JSON or parsed.

    Args:
        signal: a `TrafficSignal`.
        max_future: seconds that ``published_at`` may lie past ``processed_at``, where more than CLOCK_SKEW.

    Raises:
        RejectedSignalError: a field is missing or wrong, or the time has no sense; the message names it.
    """
    try:
        read = TrafficSignal.model_validate(json_object(signal) if isinstance(signal, bytes) else signal)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise RejectedSignalError(f"{where}: {first['msg']}") from None
    if not FIRST_YEAR <= read.published_at.year <= LAST_YEAR:
        raise RejectedSignalError(f"published_at: not within the years {FIRST_YEAR} to {LAST_YEAR}")
    if (read.published_at - read.processed_at).total_seconds() > max(max_future, CLOCK_SKEW):
        raise RejectedSignalError(IN_FUTURE)
    return Contribution(
        month_of(read.published_at),
        read.source,
        Sums(1, read.label, round(read.probability * PROBABILITY_UNITS)),
        hash((read.source, read.id)),
    )


class Accumulator:
    """The sums of signals in memory; each source and id counts once."""

    def __init__(self) -> None:
        self._sums: defaultdict[str, defaultdict[str, Sums]] = defaultdict(lambda: defaultdict(Sums))
        self._seen: set[int] = set()
        self.repeats = 0

    def add(self, one: Contribution) -> None:
        """Add a signal, unless its source and id were there before."""
        if one.id_hash in self._seen:
            self.repeats += 1
            return
        self._seen.add(one.id_hash)
        self._sums[one.month][one.source] += one.sums

    def sums(self) -> MonthlySums:
        """What has been added up."""
        return {month: dict(sources) for month, sources in self._sums.items()}
