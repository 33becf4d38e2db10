"""Whether one crypto model does better than another on the same texts, or chance alone."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from schemas.labels import ACTIONS, SCORES, SENTIMENTS
from worker.training.metrics import bootstrap, macro_f1, multilabel_macro_f1
from worker.training.predictions import Predictions, Truth

DRAWS: Final = 1000

Measure = Callable[[Truth, Predictions], float]


@dataclass(frozen=True)
class Difference:
    """One measure of both models, ``model`` minus ``other`` with its 95 % interval, and the p-value.

    The interval is a paired bootstrap over the texts. The p-value is two-sided, of an approximate
    randomisation test: how often a difference of this size comes up when each text's answers are dealt to
    the two models by a coin (Noreen 1989).
    """

    model: float
    other: float
    difference: float
    interval: tuple[float, float]
    p_value: float


@dataclass(frozen=True)
class Comparison:
    """Two models on the same texts."""

    model: str
    other: str
    texts: int
    measures: Mapping[str, Difference]

    def to_dict(self) -> dict[str, Any]:
        """The comparison as plain JSON types."""
        return asdict(self)

    def text(self) -> str:
        """The comparison as a table."""
        lines = [f"{self.model} against {self.other} on {self.texts} texts", ""]
        lines.append(f"{'measure':<24}{'model':>8}{'other':>8}{'difference':>12}{'95 %':>20}{'p':>8}")
        for name, one in self.measures.items():
            interval = f"[{one.interval[0]:+.3f}, {one.interval[1]:+.3f}]"
            lines.append(
                f"{name:<24}{one.model:>8.3f}{one.other:>8.3f}{one.difference:>+12.3f}{interval:>20}"
                f"{one.p_value:>8.3f}"
            )
        return "\n".join(lines)


def _error(index: int) -> Measure:
    return lambda truth, said: float(np.abs(truth.scores[:, index] - said.scores[:, index]).mean())


MEASURES: Final[Mapping[str, Measure]] = {
    "sentiment macro-F1": lambda truth, said: macro_f1(
        truth.sentiment, said.sentiment.argmax(1), len(SENTIMENTS)
    ),
    "ordinal error": lambda truth, said: float(np.abs(truth.sentiment - said.sentiment.argmax(1)).mean()),
    "action macro-F1": lambda truth, said: macro_f1(truth.action, said.action.argmax(1), len(ACTIONS)),
    "emotions macro-F1": lambda truth, said: multilabel_macro_f1(truth.emotions, said.named),
    **{f"{name} error": _error(index) for index, name in enumerate(SCORES)},
}


def compare(
    names: tuple[str, str], truth: Truth, model: Predictions, other: Predictions, seed: int = 1
) -> Comparison:
    """Compare the predictions of two models for the same texts."""
    texts = len(truth.sentiment)
    measures = {
        name: _difference(measure, truth, (model, other), texts, seed) for name, measure in MEASURES.items()
    }
    return Comparison(names[0], names[1], texts, measures)


def _difference(
    measure: Measure, truth: Truth, both: tuple[Predictions, Predictions], texts: int, seed: int
) -> Difference:
    model, other = both
    one, two = measure(truth, model), measure(truth, other)

    def resampled(rows: npt.NDArray[np.intp]) -> float:
        drawn = truth.take(rows)
        return measure(drawn, model.take(rows)) - measure(drawn, other.take(rows))

    rng = np.random.default_rng(seed)
    larger = 0
    for _ in range(DRAWS):
        first, second = _dealt(model, other, rng.random(texts) < 0.5)
        larger += abs(measure(truth, first) - measure(truth, second)) >= abs(one - two) - 1e-12
    return Difference(
        one, two, one - two, bootstrap(resampled, texts, DRAWS, seed), (larger + 1) / (DRAWS + 1)
    )


def _dealt(
    model: Predictions, other: Predictions, swapped: npt.NDArray[np.bool_]
) -> tuple[Predictions, Predictions]:
    """Both models' answers, those of the ``swapped`` texts exchanged."""

    def mixed(one: Predictions, two: Predictions) -> Predictions:
        pairs = ((key, value, getattr(two, key)) for key, value in vars(one).items())
        return Predictions(**{key: np.where(swapped[:, None], b, a) for key, a, b in pairs})

    return mixed(model, other), mixed(other, model)
