"""Pictures of what was measured; the machine's name is in each."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from worker.charts.figure import ENDINGS
from worker.errors import ConfigurationError


def import_matplotlib() -> Any:
    """``matplotlib.figure``, without a window system.

    Raises:
        ConfigurationError: It is not installed; the message says how to.
    """
    try:
        from matplotlib import figure
    except ModuleNotFoundError as error:
        raise ConfigurationError(
            "A plot needs matplotlib: pip install 'kbert-stream[bench]', or leave --plot out."
        ) from error
    return figure


def check_plot(path: Path) -> None:
    """Refuse before anything is measured; makes the folder.

    Raises:
        ConfigurationError: matplotlib is not installed, the ending is none that it draws, or the file cannot
            be written.
    """
    import_matplotlib()
    if path.suffix.lower() not in ENDINGS:
        raise ConfigurationError(f"--plot {path} ends in none of {', '.join(ENDINGS)}: name the picture so.")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        there = path.exists()
        path.open("ab").close()
        if not there:
            path.unlink()
    except OSError as error:
        raise ConfigurationError(
            f"--plot {path} cannot be written ({error.strerror}): name another file."
        ) from error


def draw_throughput(result: Mapping[str, Any], path: Path) -> None:
    """Draw useful tokens/s against the tokens of one batch, a line for each precision.

    ``result`` is what ``bench_engine`` answers with ``by_batch_tokens``.
    """
    machine = result["machine"]
    curves = {
        name: {int(budget): rate for budget, rate in curve.items()}
        for name, curve in result["by_batch_tokens"].items()
    }
    picture = import_matplotlib().Figure(figsize=(7.0, 4.2), layout="constrained")
    axes = picture.subplots()
    for name, curve in curves.items():
        axes.plot(list(curve), list(curve.values()), marker="o", label=name)
    axes.set_xscale("log", base=2)
    axes.set_xticks(sorted({budget for curve in curves.values() for budget in curve}))
    axes.xaxis.set_major_formatter("{x:.0f}")
    axes.set_ylim(bottom=0)
    axes.set_xlabel("tokens of one batch")
    axes.set_ylabel("useful tokens/s")
    axes.set_title(
        f"BERT-base, chat lengths: {machine['name']}, {machine['threads']} threads, torch {machine['torch']}",
        fontsize=10,
    )
    axes.grid(alpha=0.3)
    axes.legend()
    picture.savefig(path, dpi=130)
