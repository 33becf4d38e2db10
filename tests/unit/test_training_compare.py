from itertools import compress

import numpy as np

from schemas.labels import ACTIONS, EMOTIONS, SENTIMENTS
from tests.unit.training_toys import toy_rows
from worker.training.compare import MEASURES, compare
from worker.training.evaluate import report
from worker.training.predictions import Predictions, Truth

TEXTS = 240


def labels(seed: int) -> Truth:
    rng = np.random.default_rng(seed)
    return Truth(
        rng.integers(0, len(SENTIMENTS), TEXTS),
        rng.integers(0, len(ACTIONS), TEXTS),
        rng.random((TEXTS, len(EMOTIONS))) < 0.2,
        rng.random((TEXTS, 3)),
    )


def right_in(truth: Truth, share: float, seed: int) -> Predictions:
    """Predictions that are right for a share of the texts, and a guess for the others."""
    rng = np.random.default_rng(seed)
    knows, guess = rng.random(TEXTS) < share, labels(seed + 1)
    return Predictions(
        np.eye(len(SENTIMENTS))[np.where(knows, truth.sentiment, guess.sentiment)],
        np.eye(len(ACTIONS))[np.where(knows, truth.action, guess.action)],
        np.zeros((TEXTS, len(EMOTIONS))),
        np.where(knows[:, None], truth.emotions, guess.emotions),
        np.where(knows[:, None], truth.scores, guess.scores),
    )


def test_an_emotion_that_neither_text_nor_model_has_counts_in_no_mean() -> None:
    truth = labels(1)
    truth.emotions[:, 0] = False
    right = right_in(truth, 1.0, 2)
    assert MEASURES["emotions macro-F1"](truth, right) == 1.0
    rows = [
        one.model_copy(update={"emotions": tuple(compress(EMOTIONS, named))})
        for one, named in zip(toy_rows(TEXTS), truth.emotions, strict=True)
    ]
    assert report("right", "all", rows, right).emotions_macro_f1 == 1.0


def test_a_better_model_is_told_from_chance() -> None:
    truth = labels(1)
    result = compare(("good", "poor"), truth, right_in(truth, 0.7, 2), right_in(truth, 0.45, 3))
    for name in ("sentiment macro-F1", "action macro-F1", "emotions macro-F1"):
        one = result.measures[name]
        assert one.difference > 0
        assert one.interval[0] > 0
        assert one.p_value < 0.01, name
    assert result.measures["certainty error"].interval[1] < 0
    assert "sentiment macro-F1" in result.text()


def test_equals_differ_by_chance_alone() -> None:
    """Of twelve pairs of models that are equally good more than three look different once in 500 times."""
    truth = labels(1)
    found = [
        compare(("a", "b"), truth, right_in(truth, 0.6, 10 + i), right_in(truth, 0.6, 70 + i))
        .measures["action macro-F1"]
        .p_value
        < 0.05
        for i in range(12)
    ]
    assert sum(found) <= 3


def test_a_model_does_not_differ_from_itself() -> None:
    truth = labels(1)
    said = right_in(truth, 0.6, 2)
    for one in compare(("a", "a"), truth, said, said).measures.values():
        assert one.difference == 0
        assert one.p_value == 1
