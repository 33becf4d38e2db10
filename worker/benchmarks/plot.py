"""Pictures of what was measured; the machine's name is in each."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any


def import_matplotlib() -> Any:
    """``matplotlib.figure``, without a window system.

    Raises:
        ModuleNotFoundError: It is not installed; the message says how to.
    """
    try:
        from matplotlib import figure
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "A plot needs matplotlib: pip install 'kbert-stream[bench]', or leave --plot out."
        ) from error
    return figure


def draw_throughput(
    path: Path, curves: Mapping[str, Mapping[int, float]], machine: Mapping[str, Any]
) -> None:
    """Draw useful tokens/s against the tokens of one batch, a line for each precision."""
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
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.savefig(path, dpi=130)
