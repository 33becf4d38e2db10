"""Confusion matrices as pictures."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np


def plot_confusion(counts: Sequence[Sequence[int]], names: Sequence[str], title: str, path: Path) -> None:
    """Write a PNG of a confusion matrix [true][predicted]: counts, shaded by the share of the true class."""
    from matplotlib.figure import Figure

    matrix = np.asarray(counts)
    shares = matrix / np.maximum(matrix.sum(1, keepdims=True), 1)
    figure = Figure(figsize=(6.4, 5.6), layout="constrained")
    axes = figure.add_subplot()
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    places = range(len(names))
    axes.set_xticks(places, names, rotation=30, ha="right")
    axes.set_yticks(places, names)
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    axes.set_title(title)
    for row in places:
        for column in places:
            shade = "white" if shares[row, column] > 0.5 else "black"
            axes.text(column, row, str(matrix[row, column]), ha="center", va="center", color=shade)
    figure.savefig(path, dpi=120)
