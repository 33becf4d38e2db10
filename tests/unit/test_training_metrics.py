import numpy as np
import pytest
from scipy.stats import spearmanr
from sklearn.metrics import f1_score, mean_absolute_error, precision_recall_fscore_support

from worker.training.calibration import THRESHOLDS, fit_temperature, fit_thresholds
from worker.training.metrics import (
    bootstrap,
    calibration_error,
    calibration_error_by_chance,
    confusion,
    macro_f1,
    multilabel_f1,
    multilabel_macro_f1,
    precision_recall_f1,
    rank_correlation,
)
from worker.training.predictions import softmax

RNG = np.random.default_rng(5)
TRUTH = RNG.integers(0, 5, 300)
SAID = np.where(RNG.random(300) < 0.6, TRUTH, RNG.integers(0, 5, 300))


def test_classification_equals_sklearn() -> None:
    expected = precision_recall_fscore_support(TRUTH, SAID, labels=range(5), zero_division=0)
    for ours, theirs in zip(precision_recall_f1(confusion(TRUTH, SAID, 5)), expected, strict=False):
        np.testing.assert_allclose(ours, theirs)
    assert macro_f1(TRUTH, SAID, 5) == pytest.approx(f1_score(TRUTH, SAID, average="macro"))


def test_a_class_that_nobody_names_is_left_out_of_the_mean() -> None:
    truth, said = TRUTH % 3, SAID % 3
    assert macro_f1(truth, said, 6) == pytest.approx(f1_score(truth, said, average="macro"))


def test_multilabel_and_rank_equal_the_libraries() -> None:
    truth, said = RNG.random((200, 7)) < 0.3, RNG.random((200, 7)) < 0.4
    expected = f1_score(truth, said, average=None, zero_division=0)
    np.testing.assert_allclose(multilabel_f1(truth, said), expected)
    a, b = RNG.random(100).round(1), RNG.random(100).round(1)
    assert rank_correlation(a, b) == pytest.approx(spearmanr(a, b).statistic)
    assert rank_correlation(a, np.zeros(100)) == 0.0


def test_calibration_error_of_known_cases() -> None:
    sure = np.array([[1.0, 0.0]] * 4)
    assert calibration_error(sure, np.array([0, 0, 0, 0])) == pytest.approx(0.0)
    assert calibration_error(sure, np.array([0, 0, 1, 1])) == pytest.approx(0.5)


def test_a_perfectly_calibrated_model_has_an_error_that_falls_with_the_texts() -> None:
    rng = np.random.default_rng(2)
    probabilities = softmax(rng.normal(0, 1, (2000, 5)))
    truth = np.array([rng.choice(5, p=p) for p in probabilities])
    by_chance = calibration_error_by_chance(probabilities)
    assert by_chance == calibration_error_by_chance(probabilities)
    assert 0.5 * by_chance < calibration_error(probabilities, truth) < 2 * by_chance
    assert calibration_error_by_chance(probabilities[:200]) > 2 * by_chance
    assert calibration_error_by_chance(np.eye(5)) == 0.0


def test_bootstrap_interval_holds_the_mean_and_is_repeatable() -> None:
    errors = RNG.random(400)
    low, high = bootstrap(lambda rows: float(errors[rows].mean()), 400)
    assert low < mean_absolute_error(errors, np.zeros(400)) < high
    assert 0.03 < high - low < 0.09
    assert (low, high) == bootstrap(lambda rows: float(errors[rows].mean()), 400)


def test_temperature_is_found_again() -> None:
    logits = RNG.normal(0, 2, (4000, 5))
    truth = np.array([RNG.choice(5, p=p) for p in softmax(logits)])
    assert fit_temperature(logits * 2.5, truth) == pytest.approx(2.5, rel=0.1)


def test_thresholds_part_the_labels() -> None:
    truth = RNG.random((500, 7)) < 0.3
    probabilities = np.where(truth, 0.45, 0.2) + RNG.normal(0, 0.02, (500, 7))
    assert all(0.25 < t < 0.42 for t in fit_thresholds(probabilities, truth))


def test_an_emotion_that_nobody_names_is_left_out_of_the_mean() -> None:
    truth, said = RNG.random((50, 3)) < 0.3, RNG.random((50, 3)) < 0.3
    absent = np.zeros((50, 2), bool)
    wide = multilabel_macro_f1(np.hstack([truth, absent]), np.hstack([said, absent]))
    assert wide == pytest.approx(multilabel_f1(truth, said).mean())
    assert multilabel_macro_f1(absent, absent) == 0.0
    assert multilabel_macro_f1(absent, ~absent) == 0.0


def test_a_threshold_is_the_middle_of_a_plateau_and_a_half_where_nothing_is_known() -> None:
    truth = np.zeros((400, 2), bool)
    truth[:40, 1] = True
    probabilities = np.full((400, 2), 0.05)
    probabilities[:40, 1] = 0.95
    unknown, apart = fit_thresholds(probabilities, truth)
    assert unknown == 0.5
    assert apart == pytest.approx(0.45, abs=0.02)


def test_a_threshold_that_is_best_alone_stays() -> None:
    truth = RNG.random((300, 5)) < 0.2
    probabilities = np.clip(RNG.normal(0.3, 0.15, truth.shape) + 0.2 * truth, 0, 1)
    curves = np.stack([multilabel_f1(truth, probabilities >= t) for t in THRESHOLDS])
    padded = np.pad(curves, ((2, 2), (0, 0)), mode="edge")
    smooth = np.mean([padded[i : i + len(curves)] for i in range(5)], axis=0)
    assert all((np.isclose(smooth, smooth.max(0))).sum(0) == 1), "each has one best"
    expected = [round(float(THRESHOLDS[i]), 2) for i in smooth.argmax(0)]
    assert fit_thresholds(probabilities, truth) == expected
