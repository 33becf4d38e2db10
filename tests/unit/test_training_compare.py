from itertools import compress

import numpy as np
import pytest

from schemas.labels import ACTIONS, EMOTIONS, SENTIMENTS
from tests.unit.training_toys import toy_rows
from worker.inference.config import KbertConfig
from worker.training import evaluate
from worker.training.compare import MEASURES, compare
from worker.training.datasets import LabelledText
from worker.training.evaluate import report
from worker.training.metrics import bootstrap, calibration_error, rank_correlation
from worker.training.predictions import Predictions, Truth, softmax
from worker.training.report import CryptoReport

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


def labelled(truth: Truth) -> list[LabelledText]:
    """Texts with these labels; the first is very long."""
    return [
        one.model_copy(
            update={
                "text": one.text if number else "가" * 12_000,
                "sentiment_strength": SENTIMENTS[truth.sentiment[number]],
                "action_signal": ACTIONS[truth.action[number]],
                "emotions": tuple(compress(EMOTIONS, truth.emotions[number])),
                "certainty": truth.scores[number, 0],
                "relevance": truth.scores[number, 1],
                "toxicity": truth.scores[number, 2],
            }
        )
        for number, one in enumerate(toy_rows(TEXTS))
    ]


LOGITS = np.random.default_rng(7).normal(0, 3, (TEXTS, len(SENTIMENTS)))
KBERT = KbertConfig(
    temperature={"sentiment_strength": 2.0}, emo_threshold=[round(0.1 * (i + 1), 1) for i in range(7)]
)


@pytest.fixture(scope="module")
def judged() -> CryptoReport:
    """A model whose temperature for sentiment is 2, at six decimals, as in signals."""
    truth = labels(1)
    right = vars(right_in(truth, 0.6, 2))
    said = Predictions(**{**right, "sentiment": np.round(softmax(LOGITS / 2.0), 6)})
    return report("toy", "all", labelled(truth), said, KBERT)


def test_calibration_is_told_before_and_after_the_temperature(judged: CryptoReport) -> None:
    truth, head = labels(1).sentiment, judged.sentiment
    assert (head.temperature, judged.action.temperature) == (2.0, 1.0)
    assert head.calibration_error == pytest.approx(calibration_error(softmax(LOGITS / 2.0), truth), abs=1e-4)
    assert head.calibration_error_before == pytest.approx(calibration_error(softmax(LOGITS), truth), abs=1e-3)
    assert head.calibration_error_before > head.calibration_error + 0.05
    assert judged.action.calibration_error_before == pytest.approx(judged.action.calibration_error, abs=1e-4)
    assert [one.threshold for one in judged.emotions.values()] == KBERT.emo_threshold
    assert "at temperature 2.000" in judged.text()
    assert f"(perfectly calibrated {head.calibration_error_by_chance:.3f})" in judged.text()
    assert "threshold 0.70" in judged.text()


def test_measures_have_intervals_that_hold_them(judged: CryptoReport) -> None:
    pairs = [(judged.ordinal_error, judged.ordinal_interval)]
    pairs += [(one.f1, one.interval) for one in (*judged.action.classes.values(), *judged.emotions.values())]
    pairs += [(one.rank_correlation, one.rank_interval) for one in judged.scores.values()]
    pairs += [(one.sentiment, one.sentiment_interval) for one in judged.groups.values()]
    pairs += [(one.action, one.action_interval) for one in judged.groups.values()]
    for value, (low, high) in pairs:
        assert low <= value <= high
    assert all(high > low for one, (low, high) in pairs if 0 < one < 1)


def test_the_interval_of_a_rank_correlation_is_that_of_ranking_each_draw(judged: CryptoReport) -> None:
    truth, said = labels(1), right_in(labels(1), 0.6, 2)
    one, two = truth.scores[:, 0], said.scores[:, 0]
    expected = bootstrap(lambda rows: rank_correlation(one[rows], two[rows]), TEXTS)
    assert judged.scores["certainty"].rank_interval == pytest.approx(expected)


def test_what_a_baseline_learns_from_is_looked_for_only_where_it_is_asked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(evaluate, "EXTRA", ())
    monkeypatch.setattr(evaluate, "add_extra", lambda *_: pytest.fail("near-duplicates were looked for"))
    judged = evaluate.chosen_texts([])
    assert judged.rows
    assert judged.taught == []


def test_a_text_of_any_length_is_in_a_group(judged: CryptoReport) -> None:
    lengths = {name: group.texts for name, group in judged.groups.items() if "characters" in name}
    assert lengths["61 or more characters"] == 1
    assert sum(lengths.values()) == TEXTS


def test_an_emotion_that_neither_text_nor_model_has_counts_in_no_mean() -> None:
    truth = labels(1)
    truth.emotions[:, 0] = False
    right = right_in(truth, 1.0, 2)
    assert MEASURES["emotions macro-F1"](truth, right) == 1.0
    assert report("right", "all", labelled(truth), right, KbertConfig()).emotions_macro_f1 == 1.0


def test_a_better_model_is_told_from_chance() -> None:
    truth = labels(1)
    result = compare(("good", "poor"), truth, right_in(truth, 0.7, 2), right_in(truth, 0.45, 3))
    for name in ("sentiment macro-F1", "action macro-F1", "emotions macro-F1"):
        one = result.measures[name]
        assert one.difference > 0
        assert one.interval[0] > 0
        assert one.p_value < 0.01, name
    for name in ("ordinal error", "certainty error"):
        assert result.measures[name].interval[1] < 0
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
