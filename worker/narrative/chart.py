"""Charts of the index and of a regression, as PNG."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from worker.errors import ConfigurationError
from worker.narrative.index import IndexRow

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from worker.narrative.regression import Regression

_BLUE: Final = "#1f5a99"
_GREY: Final = "#888888"


def check_drawing() -> None:
    """Raise ConfigurationError where matplotlib is not installed."""
    try:
        import matplotlib  # noqa: F401
    except ModuleNotFoundError as error:
        raise ConfigurationError(
            "A chart needs matplotlib: pip install 'kbert-stream[narrative]'."
        ) from error


def index_chart(rows: Sequence[IndexRow], path: Path) -> Path:
    """Share of negative articles with its interval, and articles a month below it."""
    figure = _figure(9, 5)
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
    places = range(len(rows))
    known = [(place, row) for place, row in zip(places, rows, strict=True) if row.share is not None]
    above.fill_between(
        [place for place, _ in known],
        [row.share_low for _, row in known],
        [row.share_high for _, row in known],
        color=_BLUE,
        alpha=0.18,
        linewidth=0,
        label="95 % interval (Wilson)",
    )
    # None breaks the line: a month without articles is a gap, not a slope.
    shares = [float("nan") if row.share is None else row.share for row in rows]
    above.plot(places, shares, color=_BLUE, marker=".", label="share of negative narratives")
    above.set_ylim(0, 1)
    above.set_ylabel("share")
    above.legend(fontsize="small", loc="upper right")
    above.grid(alpha=0.3)
    below.bar(places, [row.articles for row in rows], color=_GREY)
    below.set_ylabel("articles")
    _months(below, [row.month for row in rows])
    figure.savefig(path, dpi=130)
    return path


def regression_charts(fitted: "Regression", rows: Sequence[IndexRow], folder: Path) -> list[Path]:
    """index.png, fit.png and maxlags.png; returns their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / "fit.png", folder / "maxlags.png"]
    if rows:
        paths.insert(0, index_chart(rows, folder / "index.png"))
    _fit_chart(fitted, folder / "fit.png")
    _maxlags_chart(fitted, folder / "maxlags.png")
    return paths


def _fit_chart(fitted: "Regression", path: Path) -> None:
    figure = _figure(9, 5.5)
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=[2, 1])
    places = range(len(fitted.months))
    above.plot(places, fitted.observed, color="black", label=fitted.dependent)
    above.plot(places, fitted.fitted, color=_BLUE, linestyle="--", label="fit")
    above.legend(fontsize="small")
    above.grid(alpha=0.3)
    below.bar(places, fitted.residuals, color=_GREY)
    below.axhline(0, color="black", linewidth=0.8)
    below.set_ylabel("residual")
    _months(below, fitted.months)
    figure.savefig(path, dpi=130)


def _maxlags_chart(fitted: "Regression", path: Path) -> None:
    names = fitted.index_terms
    figure = _figure(max(4.5, 3.2 * len(names)), 3.8)
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
    figure.savefig(path, dpi=130)


def _figure(width: float, height: float) -> "Figure":
    check_drawing()
    # The object interface draws without a display and without pyplot's global state.
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def _months(axes: Any, months: Sequence[str]) -> None:
    step = max(1, len(months) // 12)
    places = range(0, len(months), step)
    axes.set_xticks(list(places), [months[place] for place in places], rotation=45, ha="right")
