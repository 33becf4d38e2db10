"""Pictures: what is drawn is the series, in letters that the font has."""

import math
import random
import warnings
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib import image
from matplotlib.figure import Figure

from schemas.aggregates import Series
from schemas.labels import SENTIMENTS
from worker.aggregates.series import METRICS
from worker.charts import figure as figures
from worker.charts import fonts
from worker.charts.coin import draw_coin, stacked_shares
from worker.charts.figure import check_drawing, labels_in, picture
from worker.charts.words import Language, word
from worker.errors import ConfigurationError
from worker.narrative.chart import index_chart
from worker.narrative.index import IndexRow

START = datetime(2026, 3, 1, tzinfo=UTC)
needs_korean = pytest.mark.skipif(
    fonts.korean_family() is None, reason="no font with Korean letters is installed"
)


@pytest.fixture(autouse=True)
def _glyphs_are_there() -> Iterator[None]:
    """A letter that no font has is an error, not a box."""
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*[Gg]lyph.*")
        yield


@pytest.fixture
def no_korean_font(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    labels_in.cache_clear()
    monkeypatch.setattr(figures, "korean_family", lambda: fonts.korean_family(("no such font",)))
    yield
    labels_in.cache_clear()


def series(points: int = 40) -> Series:
    rng = random.Random(3)

    def value(name: str, place: int) -> float | None:
        if place in (7, 20, 21):
            return 0 if "." in name or name == "messages" else None  # nothing was said
        if name in ("sentiment_index", "action_balance"):
            return rng.uniform(-1, 1)
        return rng.randrange(1, 40) if "." in name or name == "messages" else rng.random()

    columns = [name for columns in METRICS.values() for name in columns]
    return Series(
        symbol="BTC",
        window="1h",
        step=3_600,
        times=[START + timedelta(hours=n) for n in range(points)],
        values={name: [value(name, n) for n in range(points)] for name in columns},
    )


def rows() -> list[IndexRow]:
    months = [f"2015-{month:02}" for month in range(1, 13)]
    return [
        IndexRow(month, 40, 10, 0.25, 0.2, 0.3, 0.3)
        if n != 4
        else IndexRow(month, 0, 0, None, None, None, None)
        for n, month in enumerate(months)
    ]


def same(drawn: Any, values: list[float | None]) -> bool:
    return len(drawn) == len(values) and all(
        math.isnan(a) if b is None else a == b for a, b in zip(drawn, values, strict=True)
    )


def test_the_data_of_each_panel_are_the_series() -> None:
    given = series()
    figure = Figure()
    draw_coin(figure, given, list(METRICS), "Bitcoin (BTC)", "en")
    panels = dict(zip(METRICS, figure.axes, strict=True))
    for metric in ("messages", "sentiment_index", "certainty", "dispersion", "action_balance"):
        lines = [line for line in panels[metric].lines if np.size(line.get_xdata()) == len(given.times)]
        (line,) = lines
        assert same(line.get_ydata(), given.values[metric]), metric
        assert np.asarray(line.get_xdata()).tolist() == given.times
    for metric in ("sentiment", "action", "emotion"):
        stack = stacked_shares(given, metric)
        assert len(panels[metric].collections) == len(stack) == len(METRICS[metric])
        for (name, lower, upper), area in zip(stack, panels[metric].collections, strict=True):
            total = [sum(given.values[other][n] or 0 for other in METRICS[metric]) for n in range(40)]
            for n, count in enumerate(given.values[f"{metric}.{name}"]):
                if total[n] == 0:
                    assert math.isnan(lower[n])
                    assert math.isnan(upper[n])
                else:
                    assert upper[n] - lower[n] == pytest.approx((count or 0) / total[n], abs=1e-9)
            drawn = {round(float(y), 9) for path in area.get_paths() for y in np.asarray(path.vertices)[:, 1]}
            assert {round(y, 9) for y in (*lower, *upper) if not math.isnan(y)} <= drawn
        assert stack[-1][2][0] == pytest.approx(1.0)
    legend = panels["sentiment"].get_legend()
    assert legend is not None
    said = [text.get_text() for text in legend.get_texts()]
    assert said == [word(name, "en") for name in reversed(SENTIMENTS)]


@pytest.mark.parametrize("language", [pytest.param("ko", marks=needs_korean), "en"])
@pytest.mark.parametrize(("ending", "head"), [("png", b"\x89PNG"), ("svg", b"<?xml"), ("pdf", b"%PDF")])
def test_a_picture_of_every_metric(tmp_path: Path, language: Language, ending: str, head: bytes) -> None:
    path = tmp_path / f"btc.{ending}"
    with picture(path, 8, 20, language) as figure:
        draw_coin(
            figure, series(), list(METRICS), "비트코인 (BTC)" if language == "ko" else "Bitcoin", language
        )
    assert path.read_bytes().startswith(head)
    chart = index_chart(rows(), tmp_path / f"index.{ending}", language)
    assert chart.read_bytes().startswith(head)
    if ending == "png":
        assert image.imread(path).std() > 0.05  # not blank


def test_without_a_korean_font_labels_are_english_and_it_is_said_once(
    no_korean_font: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert [labels_in("ko"), labels_in("ko"), labels_in("en")] == ["en", "en", "en"]
    index_chart(rows(), tmp_path / "index.png", "ko")
    assert capsys.readouterr().err.count("No font with Korean letters") == 1


@needs_korean
def test_a_korean_font_is_one_that_has_the_letters() -> None:
    from matplotlib.font_manager import FontProperties, findfont
    from matplotlib.ft2font import FT2Font

    family = fonts.korean_family()
    assert family is not None
    path = findfont(FontProperties(family=[family]), fallback_to_default=False)
    assert FT2Font(path).get_char_index(ord("힣"))


@needs_korean
def test_a_korean_column_has_letters_among_english_labels(tmp_path: Path) -> None:
    """The names of a file's columns stand in the legend of a chart whose labels are English."""
    with picture(tmp_path / "fit.png", 3, 2) as figure:
        axes = figure.subplots()
        axes.plot([1, 2], label="사고 건수")
        axes.legend()


def test_an_ending_that_is_no_picture_is_refused_before_the_work() -> None:
    with pytest.raises(ConfigurationError, match=r"ends in none of \.png, \.svg, \.pdf"):
        check_drawing(Path("btc.jpg"))
