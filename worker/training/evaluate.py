"""Judging a crypto model on labelled texts, through the inference that the worker runs."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
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
    confusion,
    macro_f1,
    multilabel_f1,
    multilabel_macro_f1,
    precision_recall_f1,
    rank_correlation,
)
from worker.training.parts import add_extra, divide
from worker.training.predictions import Bools, Floats, Ints, Predictions, Truth
from worker.training.report import (
    BaselineReport,
    ClassReport,
    CryptoReport,
    GroupReport,
    HeadReport,
    ScoreReport,
)

if TYPE_CHECKING:
    from worker.inference.load import Model

LENGTHS: Final = {
    "1 to 15 characters": range(1, 16),
    "16 to 30 characters": range(16, 31),
    "31 to 60 characters": range(31, 61),
    "61 or more characters": range(61, 10_000),
}

Rows = npt.NDArray[np.intp]


def _head(truth: Ints, probabilities: Floats, names: Sequence[str]) -> HeadReport:
    size, predicted = len(names), probabilities.argmax(1)
    counts = confusion(truth, predicted, size)
    precision, recall, f1 = precision_recall_f1(counts)
    return HeadReport(
        macro_f1=macro_f1(truth, predicted, size),
        interval=bootstrap(lambda rows: macro_f1(truth[rows], predicted[rows], size), len(truth)),
        accuracy=float((truth == predicted).mean()),
        classes={
            name: ClassReport(float(precision[i]), float(recall[i]), float(f1[i]), int(counts[i].sum()))
            for i, name in enumerate(names)
        },
        calibration_error=calibration_error(probabilities, truth),
        confusion=counts.tolist(),
    )


def _emotions(truth: Bools, named: Bools) -> dict[str, ClassReport]:
    hits = (truth & named).sum(0)
    f1 = multilabel_f1(truth, named)
    return {
        name: ClassReport(
            float(hits[i] / max(1, named[:, i].sum())),
            float(hits[i] / max(1, truth[:, i].sum())),
            float(f1[i]),
            int(truth[:, i].sum()),
        )
        for i, name in enumerate(EMOTIONS)
    }


def _score(truth: Floats, predicted: Floats) -> ScoreReport:
    errors = np.abs(truth - predicted)
    interval = bootstrap(lambda rows: float(errors[rows].mean()), len(errors))
    return ScoreReport(float(errors.mean()), interval, rank_correlation(truth, predicted))


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
    baseline_rows: Sequence[LabelledText] | None = None,
) -> CryptoReport:
    """Compare predictions with the labels; ``baseline_rows`` train a TF-IDF baseline beside them."""
    truth = Truth.of(rows)
    sentiment, action = said.sentiment.argmax(1), said.action.argmax(1)

    def emotion_f1(chosen: Rows) -> float:
        return multilabel_macro_f1(truth.emotions[chosen], said.named[chosen])

    def group(chosen: Rows) -> GroupReport:
        return GroupReport(
            len(chosen),
            macro_f1(truth.sentiment[chosen], sentiment[chosen], len(SENTIMENTS)),
            macro_f1(truth.action[chosen], action[chosen], len(ACTIONS)),
            emotion_f1(chosen),
        )

    every = np.arange(len(rows))
    return CryptoReport(
        model=name,
        part=part,
        texts=len(rows),
        sentiment=_head(truth.sentiment, said.sentiment, SENTIMENTS),
        ordinal_error=float(np.abs(truth.sentiment - sentiment).mean()),
        action=_head(truth.action, said.action, ACTIONS),
        emotions=_emotions(truth.emotions, said.named),
        emotions_macro_f1=emotion_f1(every),
        emotions_interval=bootstrap(emotion_f1, len(rows)),
        scores={n: _score(truth.scores[:, i], said.scores[:, i]) for i, n in enumerate(SCORES)},
        groups={name: group(chosen) for name, chosen in _groups(rows)},
        baseline=_baseline(baseline_rows, rows, truth) if baseline_rows else None,
    )


def _baseline(train: Sequence[LabelledText], rows: Sequence[LabelledText], truth: Truth) -> BaselineReport:
    sentiment, action = TfidfBaseline(train).predict([row.text for row in rows])
    senti, act = len(SENTIMENTS), len(ACTIONS)
    return BaselineReport(
        len(train),
        macro_f1(truth.sentiment, sentiment, senti),
        bootstrap(lambda chosen: macro_f1(truth.sentiment[chosen], sentiment[chosen], senti), len(rows)),
        macro_f1(truth.action, action, act),
        bootstrap(lambda chosen: macro_f1(truth.action[chosen], action[chosen], act), len(rows)),
    )


@dataclass(frozen=True)
class Judged:
    """The texts that a model is judged on, what a baseline may learn from, and which part they are."""

    part: str
    rows: list[LabelledText]
    taught: list[LabelledText]


def chosen_texts(files: Sequence[Path], part: Literal["test", "all"] | None = None) -> Judged:
    """Which labelled texts to judge on.

    ``part`` "test" takes the part of the files that `kbert train crypto` keeps out of training, "all" every
    row. By default: the test part of the packaged texts where no file is given, else all of the files, which
    is right for texts that the model never saw. A baseline learns from what the bundled model learned from,
    or, where a part of other files is judged, from the rest of them. Raises DatasetError where the part holds
    nothing.
    """
    part = part or ("all" if files else "test")
    rows = load_all(files or PACKAGED)
    if part == "test":
        parts = divide(rows) if files else add_extra(divide(rows), load_all(EXTRA))
        if not parts.test:
            raise DatasetError("--part test: none of so few texts falls into it; judge on all of them")
        return Judged(part, parts.test, parts.train)
    known = {row.text for row in rows}
    return Judged(part, rows, [row for row in load_all([*PACKAGED, *EXTRA]) if row.text not in known])


def predict(model: "Model", rows: Sequence[LabelledText]) -> Predictions:
    """What the model says of the texts."""
    return Predictions.of_signals(model.classify([row.text for row in rows]))


def evaluate_crypto(
    model: "Model", files: Sequence[Path], baseline: bool, part: Literal["test", "all"] | None = None
) -> CryptoReport:
    """Judge a model on labelled files; with ``baseline`` a TF-IDF model beside it."""
    judged = chosen_texts(files, part)
    said = predict(model, judged.rows)
    return report(_name(model), judged.part, judged.rows, said, judged.taught if baseline else None)


def compare_crypto(
    model: "Model", other: "Model", files: Sequence[Path], part: Literal["test", "all"] | None = None
) -> Comparison:
    """Two models on the same labelled files, with paired tests."""
    rows = chosen_texts(files, part).rows
    names = _name(model), _name(other)
    return compare(names, Truth.of(rows), predict(model, rows), predict(other, rows))


def _name(model: "Model") -> str:
    return f"{model.info.name} {model.info.revision}"
