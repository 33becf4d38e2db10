"""The report of an evaluation: one JSON object, or a page of text."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

Interval = tuple[float, float]


@dataclass(frozen=True)
class ClassReport:
    """One class: precision, recall and F1, and how many texts have it."""

    precision: float
    recall: float
    f1: float
    support: int


@dataclass(frozen=True)
class HeadReport:
    """A classification head; macro-F1 with its 95 % interval, confusion as [true][predicted]."""

    macro_f1: float
    interval: Interval
    accuracy: float
    classes: Mapping[str, ClassReport]
    calibration_error: float
    confusion: list[list[int]]


@dataclass(frozen=True)
class ScoreReport:
    """A score: mean absolute error with its 95 % interval, and Spearman's rho."""

    mae: float
    interval: Interval
    rank_correlation: float


@dataclass(frozen=True)
class GroupReport:
    """The main measures on some of the texts."""

    texts: int
    sentiment: float
    action: float
    emotions: float


@dataclass(frozen=True)
class BaselineReport:
    """Macro-F1 of the TF-IDF baseline on the same texts, with 95 % intervals, and what it was trained on."""

    trained_on: int
    sentiment: float
    sentiment_interval: Interval
    action: float
    action_interval: Interval


@dataclass(frozen=True)
class CryptoReport:
    """How a crypto model does on labelled texts. ``ordinal_error`` is in steps of the sentiment scale."""

    model: str
    part: str
    texts: int
    sentiment: HeadReport
    ordinal_error: float
    action: HeadReport
    emotions: Mapping[str, ClassReport]
    emotions_macro_f1: float
    emotions_interval: Interval
    scores: Mapping[str, ScoreReport]
    groups: Mapping[str, GroupReport]
    baseline: BaselineReport | None

    def to_dict(self) -> dict[str, Any]:
        """The report as plain JSON types."""
        return asdict(self)

    def plot(self, folder: Path) -> list[Path]:
        """Write the two confusion matrices as PNG into ``folder``; returns their paths."""
        from worker.training.confusion_plot import plot_confusion

        folder.mkdir(parents=True, exist_ok=True)
        paths = []
        for name, head in (("sentiment", self.sentiment), ("action", self.action)):
            paths.append(folder / f"confusion_{name}.png")
            title = f"{name}, {self.texts} texts, macro-F1 {head.macro_f1:.3f}"
            plot_confusion(head.confusion, list(head.classes), title, paths[-1])
        return paths

    def text(self) -> str:
        """The report as a page of text."""
        lines = [f"{self.model} on {self.texts} texts ({self.part})", ""]
        for name, head in (("sentiment_strength", self.sentiment), ("action_signal", self.action)):
            lines.append(
                f"{name}: macro-F1 {head.macro_f1:.3f} {_interval(head.interval)}"
                f"  accuracy {head.accuracy:.3f}  calibration error {head.calibration_error:.3f}"
            )
            lines += _classes(head.classes)
        lines.append(f"  mean distance on the sentiment scale {self.ordinal_error:.3f} steps")
        lines.append(f"emotions: macro-F1 {self.emotions_macro_f1:.3f} {_interval(self.emotions_interval)}")
        lines += _classes(self.emotions)
        lines.append("scores:")
        lines += [
            f"  {name:<12} MAE {score.mae:.3f} {_interval(score.interval)}"
            f"  Spearman {score.rank_correlation:.3f}"
            for name, score in self.scores.items()
        ]
        lines += ["", f"{'group':<28}{'texts':>6}{'sentiment':>11}{'action':>8}{'emotions':>10}"]
        lines += [
            f"{name:<28}{group.texts:>6}{group.sentiment:>11.3f}{group.action:>8.3f}{group.emotions:>10.3f}"
            for name, group in self.groups.items()
        ]
        if self.baseline is not None:
            base = self.baseline
            lines += [
                "",
                f"TF-IDF baseline, trained on {base.trained_on} texts:"
                f" sentiment {base.sentiment:.3f} {_interval(base.sentiment_interval)},"
                f" action {base.action:.3f} {_interval(base.action_interval)}",
            ]
        return "\n".join(lines)


def _interval(interval: Interval) -> str:
    return f"[{interval[0]:.3f}, {interval[1]:.3f}]"


def _classes(classes: Mapping[str, ClassReport]) -> list[str]:
    return [
        f"  {name:<12} precision {c.precision:.3f}  recall {c.recall:.3f}  F1 {c.f1:.3f}  ({c.support})"
        for name, c in classes.items()
    ]
