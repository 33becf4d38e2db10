"""Measures of predictions against labels. All take numpy arrays with one row for each text."""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from worker.training.predictions import Bools, Floats, Ints

MAX_BINS = 15


def confusion(truth: Ints, predicted: Ints, size: int) -> Ints:
    """Counts [size, size]: rows are true classes, columns predicted ones."""
    counts: Ints = np.bincount(truth * size + predicted, minlength=size * size).reshape(size, size)
    return counts


def precision_recall_f1(counts: Ints) -> tuple[Floats, Floats, Floats]:
    """Each [size], from a confusion matrix; 0 where a class is neither there nor predicted."""
    hits = counts.diagonal().astype(float)
    precision = hits / np.maximum(counts.sum(0), 1)
    recall = hits / np.maximum(counts.sum(1), 1)
    f1 = 2 * hits / np.maximum(counts.sum(0) + counts.sum(1), 1)
    return precision, recall, f1


def macro_f1(truth: Ints, predicted: Ints, size: int) -> float:
    """Mean F1 of the classes that are there or predicted."""
    counts = confusion(truth, predicted, size)
    f1 = precision_recall_f1(counts)[2]
    return float(f1[(counts.sum(0) + counts.sum(1)) > 0].mean())


def multilabel_f1(truth: Bools, predicted: Bools) -> Floats:
    """F1 of each label [labels]; 0 where a label is neither there nor predicted."""
    hits = (truth & predicted).sum(0)
    f1: Floats = 2 * hits / np.maximum(truth.sum(0) + predicted.sum(0), 1)
    return f1


def multilabel_macro_f1(truth: Bools, predicted: Bools) -> float:
    """Mean F1 of the labels that are there or predicted; 0 where none is."""
    named = (truth | predicted).any(0)
    return float(multilabel_f1(truth, predicted)[named].mean()) if named.any() else 0.0


def calibration_error(probabilities: Floats, truth: Ints, bins: int = MAX_BINS) -> float:
    """Expected calibration error of the top class, over bins of equal width."""
    confidence = probabilities.max(1)
    right = probabilities.argmax(1) == truth
    places = np.minimum((confidence * bins).astype(int), bins - 1)
    gaps = [
        abs(right[places == b].mean() - confidence[places == b].mean()) * (places == b).mean()
        for b in np.unique(places)
    ]
    return float(sum(gaps))


def calibration_error_by_chance(probabilities: Floats, draws: int = 200, seed: int = 1) -> float:
    """What a perfectly calibrated model would get on as many texts: the mean calibration error where labels
    are drawn from the probabilities [N, classes]."""
    rng = np.random.default_rng(seed)
    borders = (probabilities / probabilities.sum(1, keepdims=True)).cumsum(1)[:, :-1]
    drawn = ((rng.random((len(probabilities), 1)) > borders).sum(1) for _ in range(draws))
    return float(np.mean([calibration_error(probabilities, truth) for truth in drawn]))


def rank_correlation(truth: Floats, predicted: Floats) -> float:
    """Spearman's rho; 0 where one side is constant."""
    from scipy.stats import rankdata

    a, b = rankdata(truth), rankdata(predicted)
    if a.std() == 0 or b.std() == 0:
        return 0.0
    return float(np.corrcoef(a, b)[0, 1])


def bootstrap(
    measure: Callable[[npt.NDArray[np.intp]], float], rows: int, draws: int = 1000, seed: int = 1
) -> tuple[float, float]:
    """95 % interval of a measure of row indices, by resampling rows."""
    rng = np.random.default_rng(seed)
    values = [measure(rng.integers(0, rows, rows)) for _ in range(draws)]
    low, high = np.quantile(values, [0.025, 0.975])
    return float(low), float(high)
