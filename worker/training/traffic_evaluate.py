"""Judging a traffic model on labelled articles, through the inference that the worker runs."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

import numpy as np

from schemas.labels import TRAFFIC_LABELS
from worker.tasks import article_text
from worker.training.articles import PACKAGED_ARTICLES, Article, load_articles, split_articles
from worker.training.datasets import DatasetError
from worker.training.metrics import bootstrap, calibration_error, confusion, precision_recall_f1
from worker.training.predictions import Floats, Ints

if TYPE_CHECKING:
    from worker.inference.load import Model

Part = Literal["test", "all"]
Show = Literal["article", "headline", "body"]
SHOWN: Final[tuple[Show, ...]] = ("article", "headline", "body")
"""The whole article, its headline alone, its body alone."""
_MACRO, _WEIGHTED = "macro avg", "weighted avg"


@dataclass(frozen=True)
class Line:
    """One line of the table."""

    precision: float
    recall: float
    f1: float
    support: int


@dataclass(frozen=True)
class TrafficTable:
    """The card's table; the interval is a 95 % bootstrap of the negative class's F1."""

    accuracy: float
    lines: Mapping[str, Line]
    f1_interval: tuple[float, float]
    calibration_error: float
    confusion: list[list[int]]


@dataclass(frozen=True)
class TrafficReport:
    """How a traffic model does on labelled articles, and the baseline beside it where it was asked for."""

    model: str
    part: str
    articles: int
    tables: Mapping[str, TrafficTable]
    baseline_trained_on: int
    baseline: Mapping[str, TrafficTable]

    def to_dict(self) -> dict[str, Any]:
        """The report as plain JSON types."""
        return asdict(self)

    def text(self) -> str:
        """The report as a page of text."""
        lines = [f"{self.model} on {self.articles} articles ({self.part})"]
        for shown, table in self.tables.items():
            lines += ["", f"{shown}:", *_lines(table)]
        for shown, table in self.baseline.items():
            lines += ["", f"TF-IDF baseline, trained on {self.baseline_trained_on} articles, {shown}:"]
            lines += _lines(table)
        return "\n".join(lines)


class ArticleBaseline:
    """TF-IDF of character 1- to 4-grams and a logistic regression: what a model has to beat.

    Raises DatasetError where the articles are too few, or all of one label.
    """

    def __init__(self, articles: Sequence[Article]) -> None:
        from sklearn.feature_extraction.text import TfidfVectorizer
        from sklearn.linear_model import LogisticRegression

        self._vectors = TfidfVectorizer(analyzer="char_wb", ngram_range=(1, 4), min_df=2, sublinear_tf=True)
        self._regression = LogisticRegression(C=10, max_iter=2000, class_weight="balanced")
        try:
            features = self._vectors.fit_transform([f"{a.title} {a.body}" for a in articles])
            self._regression.fit(features, [a.label for a in articles])
        except ValueError as error:
            raise DatasetError(
                f"TF-IDF cannot learn from {len(articles)} articles: "
                f"it needs both labels and words that come twice ({error})"
            ) from error

    def probabilities(self, texts: Sequence[str]) -> Floats:
        """Probabilities [N, 2]."""
        result: Floats = self._regression.predict_proba(self._vectors.transform(texts))
        return result


def table(truth: Ints, probability: Floats) -> TrafficTable:
    """The table of labels [N] against probabilities [N, 2]."""
    predicted = (probability[:, 1] >= 0.5).astype(np.int64)
    counts = confusion(truth, predicted, 2)
    precision, recall, f1 = precision_recall_f1(counts)
    support = counts.sum(1)
    shares = support / support.sum()
    lines = {
        name: Line(float(precision[i]), float(recall[i]), float(f1[i]), int(support[i]))
        for i, name in enumerate(TRAFFIC_LABELS)
    }
    for name, weights in ((_MACRO, np.array([0.5, 0.5])), (_WEIGHTED, shares)):
        mean_precision, mean_recall, mean_f1 = (
            float((weights * values).sum()) for values in (precision, recall, f1)
        )
        lines[name] = Line(mean_precision, mean_recall, mean_f1, int(support.sum()))

    def negative_f1(rows: Any) -> float:
        return float(precision_recall_f1(confusion(truth[rows], predicted[rows], 2))[2][1])

    return TrafficTable(
        float((truth == predicted).mean()),
        lines,
        bootstrap(negative_f1, len(truth)),
        calibration_error(probability, truth),
        counts.tolist(),
    )


def evaluate_traffic(
    model: "Model", files: Sequence[Path], *, baseline: bool, part: Part | None = None
) -> TrafficReport:
    """Judge a model on labelled articles.

    ``part`` "test" takes the part of the files that `kbert train traffic` keeps out of training, "all" every
    row. By default: the test part of the packaged articles where no file is given, else all of the files,
    which is right for articles that the model never saw. The baseline learns from the train part of the same
    files ("test"), or from the packaged articles ("all"). Raises DatasetError where the part holds nothing.
    """
    part = part or ("all" if files else "test")
    articles = load_articles(files or PACKAGED_ARTICLES)
    if part == "test":
        parts = split_articles(articles)
        judged, taught = parts.test, parts.train
        if not judged:
            raise DatasetError("--part test: none of so few articles falls into it; judge on all of them")
    else:
        titles = {article.title for article in articles}
        judged = articles
        taught = [a for a in load_articles(PACKAGED_ARTICLES) if a.title not in titles]
    truth = np.array([article.label for article in judged])
    tables: dict[str, TrafficTable] = {}
    baselines: dict[str, TrafficTable] = {}
    simple = ArticleBaseline(taught) if baseline else None
    for shown in SHOWN:
        if shown == "body" and not all(article.body for article in judged):
            continue
        said = model.classify([_shown(a, shown, model.tokeniser.separator) for a in judged])
        negative = np.array([one["probability"] for one in said])
        tables[shown] = table(truth, np.column_stack([1 - negative, negative]))
        if simple is not None:
            baselines[shown] = table(truth, simple.probabilities([_shown(a, shown, "") for a in judged]))
    return TrafficReport(
        f"{model.info.name} {model.info.revision}", part, len(judged), tables, len(taught), baselines
    )


def _shown(article: Article, shown: Show, separator: str) -> str:
    title = "" if shown == "body" else article.title
    body = "" if shown == "headline" else article.body
    return article_text(title, body, separator)


def _lines(found: TrafficTable) -> list[str]:
    low, high = found.f1_interval
    return [
        f"{'':<20}{'precision':>10}{'recall':>10}{'F1':>10}{'support':>10}",
        *(
            f"{name:<20}{one.precision:>10.3f}{one.recall:>10.3f}{one.f1:>10.3f}{one.support:>10}"
            for name, one in found.lines.items()
        ),
        f"accuracy {found.accuracy:.3f}   F1 of the negative narrative in [{low:.3f}, {high:.3f}]   "
        f"calibration error {found.calibration_error:.3f}",
    ]
