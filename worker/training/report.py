"""The report of an evaluation: one JSON object, or a page of text."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

Interval = tuple[float, float]


@dataclass(frozen=True)
class ClassReport:
    """One class: precision, recall, F1 with its 95 % interval, and how many texts have it."""

    precision: float
    recall: float
    f1: float
    support: int
    interval: Interval


@dataclass(frozen=True)
class EmotionReport(ClassReport):
    """One emotion, and the probability from which the model names it."""

    threshold: float


@dataclass(frozen=True)
class HeadReport:
    """A classification head; macro-F1 with its 95 % interval, confusion as [true][predicted].

    ``calibration_error`` is of the probabilities in the signals, ``calibration_error_before`` of those
    before the model's ``temperature``, which divides the logits; ``..._by_chance`` is what each would be for
    a perfectly calibrated model on as many texts.
    """

    macro_f1: float
    interval: Interval
    accuracy: float
    classes: Mapping[str, ClassReport]
    calibration_error: float
    calibration_error_by_chance: float
    confusion: list[list[int]]
    temperature: float
    calibration_error_before: float
    calibration_error_before_by_chance: float


@dataclass(frozen=True)
class ScoreReport:
    """A score: mean absolute error with its 95 % interval, Spearman's rho with its own."""

    mae: float
    interval: Interval
    rank_correlation: float
    rank_interval: Interval


@dataclass(frozen=True)
class GroupReport:
    """Macro-F1 on some of the texts, of sentiment and action with 95 % intervals."""

    texts: int
    sentiment: float
    action: float
    emotions: float
    sentiment_interval: Interval
    action_interval: Interval


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
    ordinal_interval: Interval
    action: HeadReport
    emotions: Mapping[str, EmotionReport]
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
                f"  accuracy {head.accuracy:.3f}"
            )
            lines.append(
                f"  calibration error {head.calibration_error:.3f} at temperature {head.temperature:.3f}"
                f" (perfectly calibrated {head.calibration_error_by_chance:.3f}),"
                f" {head.calibration_error_before:.3f} before"
                f" (perfectly calibrated {head.calibration_error_before_by_chance:.3f})"
            )
            lines += _classes(head.classes)
        lines.append(
            f"  mean distance on the sentiment scale {self.ordinal_error:.3f}"
            f" {_interval(self.ordinal_interval)} steps"
        )
        lines.append(f"emotions: macro-F1 {self.emotions_macro_f1:.3f} {_interval(self.emotions_interval)}")
        lines += _classes(self.emotions)
        lines.append("scores:")
        lines += [
            f"  {name:<12} MAE {score.mae:.3f} {_interval(score.interval)}"
            f"  Spearman {score.rank_correlation:.3f} {_interval(score.rank_interval)}"
            for name, score in self.scores.items()
        ]
        lines += ["", f"{'group':<28}{'texts':>6}{'sentiment':>22}{'action':>22}{'emotions':>10}"]
        lines += [
            f"{name:<28}{group.texts:>6}{group.sentiment:>7.3f} {_interval(group.sentiment_interval)}"
            f"{group.action:>7.3f} {_interval(group.action_interval)}{group.emotions:>10.3f}"
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
        f"  {name:<12} precision {c.precision:.3f}  recall {c.recall:.3f}"
        f"  F1 {c.f1:.3f} {_interval(c.interval)}  ({c.support})"
        + (f"  threshold {c.threshold:.2f}" if isinstance(c, EmotionReport) else "")
        for name, c in classes.items()
    ]
