"""Judging a crypto model on labelled texts, through the inference that the worker runs."""

import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

import numpy as np
import numpy.typing as npt

from schemas.labels import ACTIONS, EMOTIONS, SCORES, SENTIMENTS
from worker.training.baseline import TfidfBaseline
from worker.training.compare import Comparison, compare
from worker.training.datasets import EXTRA, PACKAGED, DatasetError, LabelledText, load_all
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
from worker.training.parts import add_extra, divide
from worker.training.predictions import Bools, Floats, Ints, Predictions, Truth, softmax
from worker.training.report import (
    BaselineReport,
    ClassReport,
    CryptoReport,
    EmotionReport,
    GroupReport,
    HeadReport,
    Interval,
    ScoreReport,
)

if TYPE_CHECKING:
    from worker.inference.config import KbertConfig
    from worker.inference.load import Model

LENGTHS: Final = {
    "1 to 15 characters": range(1, 16),
    "16 to 30 characters": range(16, 31),
    "31 to 60 characters": range(31, 61),
    "61 or more characters": range(61, sys.maxsize),
}
_LEAST: Final = 2.5e-7
"""What a probability of 0 stands for: signals round to six decimals."""

Rows = npt.NDArray[np.intp]


def _macro_f1(truth: Ints, predicted: Ints, size: int) -> tuple[float, Interval]:
    """Macro-F1 with its 95 % interval."""
    interval = bootstrap(lambda rows: macro_f1(truth[rows], predicted[rows], size), len(truth))
    return macro_f1(truth, predicted, size), interval


def _f1_intervals(truth: Bools, named: Bools) -> list[Interval]:
    """95 % intervals of the F1 of each label, from arrays [N, labels]."""

    def f1(rows: Rows, label: int) -> float:
        return float(multilabel_f1(truth[rows, label, None], named[rows, label, None])[0])

    return [bootstrap(partial(f1, label=label), len(truth)) for label in range(truth.shape[1])]


def _before(probabilities: Floats, temperature: float) -> Floats:
    """Probabilities [N, classes] as they were before the temperature divided the logits."""
    return softmax(temperature * np.log(probabilities.clip(_LEAST)))


def _head(truth: Ints, probabilities: Floats, names: Sequence[str], temperature: float) -> HeadReport:
    size, predicted = len(names), probabilities.argmax(1)
    counts = confusion(truth, predicted, size)
    precision, recall, f1 = precision_recall_f1(counts)
    classes = np.arange(size)
    intervals = _f1_intervals(truth[:, None] == classes, predicted[:, None] == classes)
    mean_f1, interval = _macro_f1(truth, predicted, size)
    before = _before(probabilities, temperature)
    return HeadReport(
        macro_f1=mean_f1,
        interval=interval,
        accuracy=float((truth == predicted).mean()),
        classes={
            name: ClassReport(
                float(precision[i]), float(recall[i]), float(f1[i]), int(counts[i].sum()), intervals[i]
            )
            for i, name in enumerate(names)
        },
        calibration_error=calibration_error(probabilities, truth),
        calibration_error_by_chance=calibration_error_by_chance(probabilities),
        confusion=counts.tolist(),
        temperature=temperature,
        calibration_error_before=calibration_error(before, truth),
        calibration_error_before_by_chance=calibration_error_by_chance(before),
    )


def _emotions(truth: Bools, named: Bools, thresholds: Sequence[float]) -> dict[str, EmotionReport]:
    hits = (truth & named).sum(0)
    f1, intervals = multilabel_f1(truth, named), _f1_intervals(truth, named)
    return {
        name: EmotionReport(
            float(hits[i] / max(1, named[:, i].sum())),
            float(hits[i] / max(1, truth[:, i].sum())),
            float(f1[i]),
            int(truth[:, i].sum()),
            intervals[i],
            thresholds[i],
        )
        for i, name in enumerate(EMOTIONS)
    }


def _score(truth: Floats, predicted: Floats) -> ScoreReport:
    errors = np.abs(truth - predicted)
    interval = bootstrap(lambda rows: float(errors[rows].mean()), len(errors))
    rho = rank_correlation(truth, predicted)
    return ScoreReport(float(errors.mean()), interval, rho, _rank_interval(truth, predicted))


def _rank_interval(truth: Floats, predicted: Floats) -> Interval:
    """95 % interval of Spearman's rho; a draw counts places among the distinct values and sorts nothing."""
    one, two = (np.unique(values, return_inverse=True)[1] for values in (truth, predicted))

    def rho(rows: Rows) -> float:
        a, b = _ranks(one[rows]), _ranks(two[rows])
        spread = float(np.sqrt((a @ a) * (b @ b)))
        return float(a @ b) / spread if spread else 0.0

    return bootstrap(rho, len(truth))


def _ranks(places: Ints) -> Floats:
    """Ranks [N] around their mean, from whole numbers from 0 on; equal ones share theirs."""
    counts = np.bincount(places)
    ranks: Floats = (counts.cumsum() - (counts - 1) / 2)[places]
    centred: Floats = ranks - ranks.mean()
    return centred


def _groups(rows: Sequence[LabelledText]) -> Iterator[tuple[str, Rows]]:
    """Names and row indices of the groups that have texts: by source, by register, by length."""
    tests: list[tuple[str, Callable[[LabelledText], bool]]] = [
        *((f"source {name}", lambda r, name=name: r.source == name) for name in ("chat", "news")),
        *(
            (f"register {name}", lambda r, name=name: r.file == name)
            for name in sorted({r.file for r in rows})
        ),
        *((name, lambda r, lengths=lengths: len(r.text) in lengths) for name, lengths in LENGTHS.items()),
    ]
    for name, test in tests:
        chosen = np.flatnonzero([test(row) for row in rows])
        if len(chosen):
            yield name, chosen


def report(
    name: str,
    part: str,
    rows: Sequence[LabelledText],
    said: Predictions,
    kbert: "KbertConfig",
    *,
    baseline_rows: Sequence[LabelledText] | None = None,
) -> CryptoReport:
    """Compare predictions with the labels; ``kbert`` says with which temperatures and thresholds they were
    made, and ``baseline_rows`` train a TF-IDF baseline beside them.
    """
    truth = Truth.of(rows)
    sentiment, action = said.sentiment.argmax(1), said.action.argmax(1)
    steps = np.abs(truth.sentiment - sentiment)

    def emotion_f1(chosen: Rows) -> float:
        return multilabel_macro_f1(truth.emotions[chosen], said.named[chosen])

    def group(chosen: Rows) -> GroupReport:
        senti, senti_interval = _macro_f1(truth.sentiment[chosen], sentiment[chosen], len(SENTIMENTS))
        act, act_interval = _macro_f1(truth.action[chosen], action[chosen], len(ACTIONS))
        return GroupReport(len(chosen), senti, act, emotion_f1(chosen), senti_interval, act_interval)

    every = np.arange(len(rows))
    return CryptoReport(
        model=name,
        part=part,
        texts=len(rows),
        sentiment=_head(
            truth.sentiment, said.sentiment, SENTIMENTS, kbert.temperature.get("sentiment_strength", 1.0)
        ),
        ordinal_error=float(steps.mean()),
        ordinal_interval=bootstrap(lambda chosen: float(steps[chosen].mean()), len(rows)),
        action=_head(truth.action, said.action, ACTIONS, kbert.temperature.get("action_signal", 1.0)),
        emotions=_emotions(truth.emotions, said.named, kbert.thresholds()),
        emotions_macro_f1=emotion_f1(every),
        emotions_interval=bootstrap(emotion_f1, len(rows)),
        scores={n: _score(truth.scores[:, i], said.scores[:, i]) for i, n in enumerate(SCORES)},
        groups={name: group(chosen) for name, chosen in _groups(rows)},
        baseline=_baseline(baseline_rows, rows, truth) if baseline_rows else None,
    )


def _baseline(train: Sequence[LabelledText], rows: Sequence[LabelledText], truth: Truth) -> BaselineReport:
    sentiment, action = TfidfBaseline(train).predict([row.text for row in rows])
    return BaselineReport(
        len(train),
        *_macro_f1(truth.sentiment, sentiment, len(SENTIMENTS)),
        *_macro_f1(truth.action, action, len(ACTIONS)),
    )


@dataclass(frozen=True)
class Judged:
    """The texts that a model is judged on, which part they are, and what a baseline learns from (empty where
    none is asked for)."""

    part: str
    rows: list[LabelledText]
    taught: list[LabelledText]


def chosen_texts(
    files: Sequence[Path], part: Literal["test", "all"] | None = None, *, baseline: bool = False
) -> Judged:
    """Which labelled texts to judge on.

    ``part`` "test" takes the part of the files that `kbert train crypto` keeps out of training, "all" every
    row. By default: the test part of the packaged texts where no file is given, else all of the files, which
    is right for texts that the model never saw. With ``baseline``, it learns from what the bundled model
    learned from, or, where a part of other files is judged, from the rest of them. Raises DatasetError where
    the part holds nothing.
    """
    part = part or ("all" if files else "test")
    rows = load_all(files or PACKAGED)
    if part == "test":
        parts = divide(rows)
        if baseline and not files:
            parts = add_extra(parts, load_all(EXTRA))
        if not parts.test:
            raise DatasetError("--part test: none of so few texts falls into it; judge on all of them")
        return Judged(part, parts.test, parts.train if baseline else [])
    if not baseline:
        return Judged(part, rows, [])
    known = {row.text for row in rows}
    return Judged(part, rows, [row for row in load_all([*PACKAGED, *EXTRA]) if row.text not in known])


def predict(model: "Model", rows: Sequence[LabelledText]) -> Predictions:
    """What the model says of the texts."""
    return Predictions.of_signals(model.classify([row.text for row in rows]))


def evaluate_crypto(
    model: "Model", files: Sequence[Path], baseline: bool, part: Literal["test", "all"] | None = None
) -> CryptoReport:
    """Judge a model on labelled files; with ``baseline`` a TF-IDF model beside it."""
    judged = chosen_texts(files, part, baseline=baseline)
    said = predict(model, judged.rows)
    return report(_name(model), judged.part, judged.rows, said, model.kbert, baseline_rows=judged.taught)


def compare_crypto(
    model: "Model", other: "Model", files: Sequence[Path], part: Literal["test", "all"] | None = None
) -> Comparison:
    """Two models on the same labelled files, with paired tests."""
    rows = chosen_texts(files, part).rows
    names = _name(model), _name(other)
    return compare(names, Truth.of(rows), predict(model, rows), predict(other, rows))


def _name(model: "Model") -> str:
    return f"{model.info.name} {model.info.revision}"
