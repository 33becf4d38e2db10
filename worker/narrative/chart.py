"""Charts of the index and of a regression."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from worker.charts.figure import labels_in, picture
from worker.charts.words import Language, word
from worker.errors import KbertError
from worker.narrative.index import IndexRow

if TYPE_CHECKING:
    from worker.narrative.regression import Regression

_BLUE: Final = "#1f5a99"
_GREY: Final = "#888888"


def index_chart(rows: Sequence[IndexRow], path: Path, language: Language = "en") -> Path:
    """Share of negative articles with its interval, and articles a month below it; PNG, SVG or PDF."""
    language = labels_in(language)
    places = range(len(rows))
    with picture(path, 9, 5, language) as figure:
        above, below = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
        # NaN breaks line and band: a month without articles is a gap, not a slope.
        shares, low, high = (
            [float("nan") if value is None else value for value in column]
            for column in zip(*((row.share, row.share_low, row.share_high) for row in rows), strict=True)
        )
        label = word("95 % interval (Wilson)", language)
        above.fill_between(places, low, high, color=_BLUE, alpha=0.18, linewidth=0, label=label)
        label = word("share of negative narratives", language)
        above.plot(places, shares, color=_BLUE, marker=".", label=label)
        above.set_ylim(0, 1)
        above.set_ylabel(word("share", language))
        above.legend(loc="upper right")
        below.bar(places, [row.articles for row in rows], color=_GREY)
        below.set_ylabel(word("articles", language))
        _months(below, [row.month for row in rows])
    return path


def regression_charts(fitted: "Regression", rows: Sequence[IndexRow], folder: Path) -> list[Path]:
    """index.png, fit.png and maxlags.png; returns their paths.

    Raises:
        KbertError: the folder or a picture cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise KbertError(f"The folder {folder} cannot be made: {error.strerror}.") from error
    paths = [folder / "fit.png", folder / "maxlags.png"]
    if rows:
        paths.insert(0, index_chart(rows, folder / "index.png"))
    _fit_chart(fitted, folder / "fit.png")
    _maxlags_chart(fitted, folder / "maxlags.png")
    return paths


def _fit_chart(fitted: "Regression", path: Path) -> None:
    with picture(path, 9, 5.5) as figure:
        above, below = figure.subplots(2, 1, sharex=True, height_ratios=[2, 1])
        places = range(len(fitted.months))
        above.plot(places, fitted.observed, color="black", label=fitted.dependent)
        above.plot(places, fitted.fitted, color=_BLUE, linestyle="--", label="fit")
        above.legend()
        below.bar(places, fitted.residuals, color=_GREY)
        below.axhline(0, color="black", linewidth=0.8)
        below.set_ylabel("residual")
        _months(below, fitted.months)


def _maxlags_chart(fitted: "Regression", path: Path) -> None:
    names = fitted.index_terms
    with picture(path, max(4.5, 3.2 * len(names)), 3.8) as figure:
        for place, name in enumerate(names, start=1):
            axes = figure.add_subplot(1, len(names), place)
            lags = [line.maxlags for line in fitted.sensitivity]
            terms = [line.terms[name] for line in fitted.sensitivity]
            axes.errorbar(
                range(len(lags)),
                [term.coefficient for term in terms],
                yerr=[
                    [term.coefficient - term.low for term in terms],
                    [term.high - term.coefficient for term in terms],
                ],
                fmt="o",
                color=_BLUE,
                capsize=3,
            )
            axes.axhline(0, color="black", linewidth=0.8)
            axes.set_xticks(range(len(lags)), [str(lag) for lag in lags])
            axes.set_xlabel("maxlags")
            axes.set_title(name, fontsize="small")


def _months(axes: Any, months: Sequence[str]) -> None:
    step = max(1, len(months) // 12)
    places = range(0, len(months), step)
    axes.set_xticks(list(places), [months[place] for place in places], rotation=45, ha="right")
