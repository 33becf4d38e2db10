"""The training curve as CSV and PNG."""

import csv
from collections.abc import Sequence
from pathlib import Path


def write_curve(rows: Sequence[dict[str, float]], folder: Path, name: str) -> None:
    """Write ``name.csv`` and ``name.png``; rows may differ in their keys, all have ``step``."""
    if not rows:
        return
    keys = sorted({key for row in rows for key in row} - {"step"})
    with (folder / f"{name}.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, ["step", *keys])
        writer.writeheader()
        writer.writerows(rows)

    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4.5), layout="constrained")
    left = figure.add_subplot()
    right = left.twinx()
    for key in keys:
        points = [(row["step"], row[key]) for row in rows if key in row]
        axes = left if "loss" in key else right
        axes.plot(*zip(*points, strict=True), label=key, linestyle="-" if axes is left else "--", marker=".")
    left.set_xlabel("step")
    left.set_ylabel("loss")
    right.set_ylabel("validation")
    figure.legend(loc="outside right upper", fontsize="small")
    figure.savefig(folder / f"{name}.png", dpi=120)
