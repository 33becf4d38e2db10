"""Temperatures and emotion thresholds, fitted on the validation part."""

from typing import Final

import numpy as np

from worker.training.metrics import multilabel_f1
from worker.training.predictions import Bools, Floats, Ints, softmax

TEMPERATURES: Final = np.geomspace(0.25, 4.0, 81)
THRESHOLDS: Final = np.arange(0.10, 0.81, 0.02)
UNKNOWN_THRESHOLD: Final = 0.5
"""For an emotion that no text of the validation part has."""


def fit_temperature(logits: Floats, truth: Ints) -> float:
    """The divisor of the logits that makes the labels most likely."""
    rows = np.arange(len(truth))
    losses = [-np.log(softmax(logits / t)[rows, truth] + 1e-12).mean() for t in TEMPERATURES]
    return round(float(TEMPERATURES[int(np.argmin(losses))]), 4)


def fit_thresholds(probabilities: Floats, truth: Bools) -> list[float]:
    """For each emotion the threshold with the best F1, averaged with its neighbours.

    The raw optimum of some thirty positives jumps from sample to sample; a plateau holds, and its middle is
    taken. An emotion without any positive gets UNKNOWN_THRESHOLD.
    """
    curves = np.stack([multilabel_f1(truth, probabilities >= t) for t in THRESHOLDS])
    padded = np.pad(curves, ((2, 2), (0, 0)), mode="edge")
    smooth = np.mean([padded[i : i + len(curves)] for i in range(5)], axis=0)
    chosen: list[float] = []
    for curve, named in zip(smooth.T, truth.T, strict=True):
        # Means of the same plateau differ in the last bit.
        best = np.flatnonzero(curve >= curve.max() - 1e-12)
        middle = round(float(THRESHOLDS[best[len(best) // 2]]), 2)
        chosen.append(middle if named.any() else UNKNOWN_THRESHOLD)
    return chosen
