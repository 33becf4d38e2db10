"""The index: one row a month, computed from integer sums."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import frexp, ldexp, sqrt
from statistics import mean, stdev
from typing import Final

from worker.errors import KbertError
from worker.narrative.months import months_between
from worker.narrative.sums import PROBABILITY_UNITS, MonthlySums, Sums

Z95: Final = 1.959963984540054
MIN_HISTORY: Final = 12
"""Months with articles that have to lie before the first standardised one."""


class NoArticlesError(KbertError):
    """There is nothing to make an index of."""


@dataclass(frozen=True, slots=True)
class IndexRow:
    """One month. ``None`` where there is nothing to divide by."""

    month: str
    articles: int
    negatives: int
    share: float | None
    share_low: float | None
    share_high: float | None
    mean_probability: float | None
    standardised: float | None = None


def wilson(share: float, trials: float, z: float = Z95) -> tuple[float, float]:
    """Wilson's score interval of a share of ``trials`` (which need not be whole)."""
    centre = (share + z * z / (2 * trials)) / (1 + z * z / trials)
    half = z / (1 + z * z / trials) * sqrt(share * (1 - share) / trials + z * z / (4 * trials * trials))
    return max(0.0, centre - half), min(1.0, centre + half)


def monthly_index(
    sums: MonthlySums,
    first: str | None = None,
    last: str | None = None,
    *,
    weights: Mapping[str, float] | None = None,
    standardise: bool = False,
    min_history: int = MIN_HISTORY,
) -> list[IndexRow]:
    """Every month from ``first`` to ``last``, also those without an article.

    Args:
        sums: what was counted.
        first: default: the first month counted.
        last: default: the last month counted.
        weights: of sources in share, interval and mean; 1 where absent. Counts are never weighted.
        standardise: fill ``standardised``, from months before each only, those before ``first`` included.
        min_history: months with articles that `standardised` needs before it.

    Raises:
        NoArticlesError: nothing was counted and the months are not given.
    """
    if not sums and (first is None or last is None):
        raise NoArticlesError("No article has been counted yet: name the months with --from and --to.")
    first = first or min(sums)
    last = last or max(sums)
    if first > last:
        raise NoArticlesError(f"There is no month from {first} to {last}.")
    history = min([first, *sums])
    rows = [_row(month, sums.get(month, {}), weights or {}) for month in months_between(history, last)]
    if standardise:
        rows = _standardised(rows, min_history)
    return [row for row in rows if row.month >= first]


def _row(month: str, sources: Mapping[str, Sums], weights: Mapping[str, float]) -> IndexRow:
    total = sum(sources.values(), Sums())
    # By a power of two, which rounds nothing: the square of a weight of 1e-200 is 0, of 1e200 infinite.
    _, exponent = frexp(max((weights.get(source, 1.0) for source in sources), default=0.0))
    # Sorted: a sum of floats depends on its order, and a file's order of sources is not Redis's.
    weighted = [(ldexp(weights.get(source, 1.0), -exponent), sources[source]) for source in sorted(sources)]
    mass = sum(weight * one.articles for weight, one in weighted)
    if not mass:
        return IndexRow(month, total.articles, total.negatives, None, None, None, None)
    share = sum(weight * one.negatives for weight, one in weighted) / mass
    # Kish: so many articles of equal weight would tell as much.
    effective = mass * mass / sum(weight * weight * one.articles for weight, one in weighted)
    low, high = wilson(share, effective)
    probability = sum(weight * one.probability for weight, one in weighted) / mass / PROBABILITY_UNITS
    return IndexRow(month, total.articles, total.negatives, share, low, high, probability)


def _standardised(rows: Sequence[IndexRow], min_history: int) -> list[IndexRow]:
    past: list[float] = []
    result = []
    for row in rows:
        value = None
        if row.share is not None:
            if len(past) >= max(2, min_history) and (deviation := stdev(past)) > 0:
                value = (row.share - mean(past)) / deviation
            past.append(row.share)
        result.append(
            IndexRow(
                row.month,
                row.articles,
                row.negatives,
                row.share,
                row.share_low,
                row.share_high,
                row.mean_probability,
                value,
            )
        )
    return result
