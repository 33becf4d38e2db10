"""One coin over time: a panel a metric."""

from collections.abc import Sequence
from itertools import accumulate
from typing import TYPE_CHECKING, Any, Final

from schemas.aggregates import Series
from schemas.labels import ACTIONS, EMOTIONS, SENTIMENTS
from worker.charts.words import Language, window_name, word

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_LINE: Final = "#1f5a99"
_GREY: Final = "#8a8f98"
_SIGNED: Final = ("sentiment_index", "action_balance")
_UNIT: Final = ("certainty", "relevance", "toxicity")
_UP_DOWN: Final[dict[Language, tuple[str, str]]] = {
    "ko": ("#c9302c", "#1f5fb4"),  # as on Korean exchanges
    "en": ("#2a8a4a", "#c0392b"),
}
_CLASSES: Final[dict[str, Sequence[str]]] = {
    "sentiment": SENTIMENTS,
    "action": ACTIONS,
    "emotion": EMOTIONS,
}
_MIX: Final[dict[str, Sequence[str]]] = {
    # Okabe and Ito's colours, which the colour-blind tell apart.
    "action": ("#009e73", "#56b4e9", "#d55e00", "#e69f00", "#b5bac2", "#cc79a7"),
    "emotion": ("#e69f00", "#0072b2", "#009e73", "#56b4e9", "#d55e00", "#cc79a7", "#b5bac2"),
}
PANEL_INCHES: Final = 2.0
WIDTH_INCHES: Final = 8.0


def draw_coin(
    figure: "Figure", series: Series, metrics: Sequence[str], title: str, language: Language
) -> None:
    """Panels one below the other over a common axis of time in UTC; a missing value is a gap."""
    from matplotlib.dates import AutoDateLocator, ConciseDateFormatter

    panels = figure.subplots(len(metrics), 1, sharex=True, squeeze=False)[:, 0]
    for axes, metric in zip(panels, metrics, strict=True):
        if metric in _CLASSES:
            _shares(axes, series, metric, language)
        else:
            _line(axes, series, metric, language)
    window = word("rolling window {}", language).format(window_name(series.window, language))
    panels[0].set_title(f"{title}  ·  {window}", loc="left", fontweight="bold")
    locator = AutoDateLocator()  # type: ignore[no-untyped-call]
    formatter = ConciseDateFormatter(locator)  # type: ignore[no-untyped-call]
    panels[-1].xaxis.set_major_locator(locator)
    panels[-1].xaxis.set_major_formatter(formatter)
    panels[-1].set_xlabel(word("time (UTC)", language))
    if len(series.times) > 1:
        panels[-1].set_xlim(series.times[0], series.times[-1])


def _line(axes: Any, series: Series, metric: str, language: Language) -> None:
    values = [float("nan") if value is None else value for value in series.values[metric]]
    axes.set_ylabel(word(metric, language))
    if metric == "messages":
        axes.fill_between(series.times, values, step="pre", color=_GREY, alpha=0.35, linewidth=0)
        axes.plot(series.times, values, color=_GREY, drawstyle="steps-pre")
        axes.set_ylim(bottom=0)
        return
    if metric in _SIGNED:
        up, down = _UP_DOWN[language]
        for side, colour in ((1, up), (-1, down)):
            where = [side * value >= 0 for value in values]
            axes.fill_between(
                series.times, values, 0, where=where, interpolate=True, color=colour, alpha=0.25, linewidth=0
            )
        axes.axhline(0, color="#555555", linewidth=0.7)
        axes.set_ylim(-1, 1)
    elif metric in _UNIT:
        axes.set_ylim(0, 1)
    else:
        axes.set_ylim(bottom=0)
    # A point between two gaps has no line: the marker shows it.
    axes.plot(series.times, values, color=_LINE, marker=".", markersize=2.5)


def _shares(axes: Any, series: Series, metric: str, language: Language) -> None:
    for (name, lower, upper), colour in zip(
        stacked_shares(series, metric), _colours(metric, language), strict=True
    ):
        axes.fill_between(series.times, lower, upper, color=colour, linewidth=0, label=word(name, language))
    axes.set_ylim(0, 1)
    axes.set_ylabel(word(metric, language))
    axes.grid(visible=False)
    handles, labels = axes.get_legend_handles_labels()
    # In the order in which they lie on one another.
    axes.legend(handles[::-1], labels[::-1], loc="center left", bbox_to_anchor=(1.0, 0.5))


def stacked_shares(series: Series, metric: str) -> list[tuple[str, list[float], list[float]]]:
    """Each class with its lower and upper edge in a stack of height 1; NaN where nothing was counted.

    A message may show several emotions: their shares are of all emotions shown.
    """
    names = _CLASSES[metric]
    rows = list(zip(*(series.values[f"{metric}.{name}"] for name in names), strict=True))
    stacks: list[list[float]] = []
    for row in rows:
        counts = [value or 0.0 for value in row]
        total = sum(counts)
        stacks.append([part / total if total else float("nan") for part in accumulate(counts, initial=0.0)])
    return [
        (name, [stack[place] for stack in stacks], [stack[place + 1] for stack in stacks])
        for place, name in enumerate(names)
    ]


def _colours(metric: str, language: Language) -> Sequence[str]:
    if metric != "sentiment":
        return _MIX[metric]
    up, down = _UP_DOWN[language]
    return (up, _lighter(up), "#d5d8dd", _lighter(down), down)


def _lighter(colour: str) -> str:
    channels = [int(colour[n : n + 2], 16) for n in (1, 3, 5)]
    return "#" + "".join(f"{round(255 - (255 - channel) * 0.5):02x}" for channel in channels)
