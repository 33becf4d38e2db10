"""Latency against load as a picture, from the JSON of ``kbert bench latency``."""

from pathlib import Path
from typing import Any, Final

from worker.benchmarks.plot import import_matplotlib

_COLOURS: Final = ("#0b6e4f", "#c8553d", "#3d5a80")


def plot_latency(result: dict[str, Any], path: Path) -> None:
    """Write a PNG: p50 and p99 of each rule against the share of capacity, the machine in the title."""
    picture = import_matplotlib().Figure(figsize=(8, 4.5), layout="constrained")
    axes = picture.subplots()
    loads = [100 * point["load"] for point in result["loads"]]
    for colour, rule in zip(_COLOURS, result["loads"][0]["ms"], strict=True):
        for quantile, style in (("p99", "-o"), ("p50", ":o")):
            values = [point["ms"][rule][quantile] for point in result["loads"]]
            axes.plot(loads, values, style, color=colour, markersize=4, label=f"{rule}, {quantile}")
    axes.axhline(result["broker_ms"]["p99"], color="grey", linewidth=0.8)
    axes.annotate("broker alone, p99", (loads[0], result["broker_ms"]["p99"]), fontsize=8, color="grey")
    axes.set_yscale("log")
    axes.set_xlabel(f"load, % of {result['capacity']['ours']:.0f} messages/s")
    axes.set_ylabel("ms from planned arrival to acknowledged signal")
    engine = result["engine"].partition(" (")[0]
    axes.set_title(f"{result['model']} on {result['machine']['name']}: {engine}", fontsize=10)
    axes.legend(fontsize=8)
    axes.grid(alpha=0.3, which="both")
    picture.savefig(path, dpi=130)
