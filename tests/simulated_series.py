"""Simulated monthly series with a known effect, and how often an interval covers it."""

from dataclasses import dataclass

import numpy as np

from worker.narrative.months import name
from worker.narrative.regression import regress
from worker.narrative.series import Series

MONTHS = 720
"""Long, since HAC errors are right in the limit only; see worker/narrative/README.md for short samples."""
OF_INDEX = 0.5
OF_ERROR = 0.4
EFFECT = 1.5
T_POINT = 1.9633  # 97.5 % of t with 718 degrees of freedom


@dataclass
class Coverage:
    """Shares of the series whose 95 % interval holds the effect."""

    hac: float
    plain: float


def autoregressive(rng: np.random.Generator, months: int, persistence: float) -> np.ndarray:
    """AR(1) of unit innovations, from its stationary distribution on."""
    values = np.empty(months)
    values[0] = rng.normal() / np.sqrt(1 - persistence**2)
    for t in range(1, months):
        values[t] = persistence * values[t - 1] + rng.normal()
    return values


def series(values: np.ndarray, start: int = 2015 * 12) -> Series:
    """Values as months from ``start`` on."""
    return {name(start + t): float(value) for t, value in enumerate(values)}


def coverage(count: int, seed: int = 1) -> Coverage:
    """Regress ``count`` simulated series on their index: both persist, so plain errors are too small."""
    rng = np.random.default_rng(seed)
    hac = plain = 0
    for _ in range(count):
        index = autoregressive(rng, MONTHS, OF_INDEX)
        y = 2.0 + EFFECT * index + autoregressive(rng, MONTHS, OF_ERROR)
        fitted = regress(series(y), series(index), dependent="y", index_name="index")
        term = fitted.terms["index"]
        hac += term.low <= EFFECT <= term.high
        plain += abs(term.coefficient - EFFECT) <= T_POINT * fitted.plain_errors["index"]
    return Coverage(hac / count, plain / count)
