"""A figure in the house style, and its file."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from worker.charts.fonts import korean_family
from worker.charts.words import Language
from worker.errors import ConfigurationError, KbertError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ENDINGS: Final = (".png", ".svg", ".pdf")
_DPI: Final = 200
_STYLE: Final[dict[str, Any]] = {
    "font.size": 9.0,
    "axes.titlesize": 11.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.7,
    "axes.edgecolor": "#555555",
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#dddddd",
    "grid.linewidth": 0.5,
    "xtick.color": "#333333",
    "ytick.color": "#333333",
    "lines.linewidth": 1.3,
    "legend.frameon": False,
    "legend.fontsize": "small",
    "pdf.fonttype": 42,  # letters that a reader can select and search
}


def check_drawing(path: Path | None = None) -> None:
    """Refuse before the work is done.

    Raises:
        ConfigurationError: matplotlib is not installed, the ending is none that it draws, or the folder is
            not there.
    """
    if path is not None and path.suffix.lower() not in ENDINGS:
        raise ConfigurationError(f"{path} ends in none of {', '.join(ENDINGS)}: name the picture so.")
    if path is not None and not path.parent.is_dir():
        raise ConfigurationError(f"{path} lies in a folder that is not there.")
    try:
        import matplotlib  # noqa: F401
    except ModuleNotFoundError as error:
        raise ConfigurationError("A chart needs matplotlib: pip install 'kbert-stream[history]'.") from error


@cache
def labels_in(language: Language) -> Language:
    """The language, or English where no installed font has Korean letters; says so once."""
    check_drawing()
    if language == "ko" and korean_family() is None:
        print(
            "No font with Korean letters is installed (Noto Sans CJK KR, Nanum Gothic): labels are English.",
            file=sys.stderr,
        )
        return "en"
    return language


@contextmanager
def picture(path: Path, width: float, height: float, language: Language = "en") -> Iterator["Figure"]:
    """An empty figure of that size in inches, saved when the block ends.

    Args:
        language: of the labels, as `labels_in` gave it.

    Raises:
        KbertError: the file cannot be written.
    """
    check_drawing(path)
    import matplotlib as mpl

    # The object interface draws without a display and without pyplot's global state.
    from matplotlib.figure import Figure

    family = korean_family()
    # What one font lacks comes from the other: signs, and in English labels the names of a file's columns.
    families = ["DejaVu Sans", *([family] if family else [])]
    if language == "ko":
        families.reverse()
    style: Any = _STYLE | {"font.family": families}
    with mpl.rc_context(style):
        figure = Figure(figsize=(width, height), layout="constrained")
        yield figure
        try:
            figure.savefig(path, dpi=_DPI)
        except OSError as error:
            raise KbertError(f"{path} cannot be written: {error.strerror}.") from error
