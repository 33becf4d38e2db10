"""The index as a table, CSV, Parquet or JSON."""

import csv
from collections.abc import Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, Final

from rich.table import Table

from worker.errors import ConfigurationError, KbertError
from worker.narrative.index import IndexRow

COLUMNS: Final = tuple(field.name for field in fields(IndexRow))
SUFFIXES: Final = (".csv", ".parquet")


def columns(*, standardised: bool) -> list[str]:
    """``standardised`` only where it was asked for, whether or not a month has it."""
    return [column for column in COLUMNS if standardised or column != "standardised"]


def records(rows: Sequence[IndexRow], *, standardised: bool = True) -> list[dict[str, Any]]:
    """The rows as plain dicts."""
    kept = columns(standardised=standardised)
    return [{column: asdict(row)[column] for column in kept} for row in rows]


def check_output(path: Path) -> None:
    """Refuse a file name before the work is done.

    Raises:
        ConfigurationError: it ends neither in .csv nor in .parquet, its folder is not there, or Parquet's
            library is missing.
    """
    if path.suffix not in SUFFIXES:
        raise ConfigurationError(f"--out {path} ends neither in .csv nor in .parquet.")
    if not path.parent.is_dir():
        raise ConfigurationError(f"--out {path} lies in a folder that is not there.")
    if path.suffix == ".parquet":
        try:
            import pyarrow  # noqa: F401
        except ModuleNotFoundError as error:
            raise ConfigurationError(
                "Parquet needs pyarrow: pip install 'kbert-stream[narrative]'."
            ) from error


def write(rows: Sequence[IndexRow], path: Path, *, standardised: bool = True) -> None:
    """Write the rows, in the format that the suffix names.

    Raises:
        KbertError: the file cannot be written.
    """
    check_output(path)
    try:
        _write(records(rows, standardised=standardised), columns(standardised=standardised), path)
    except OSError as error:
        raise KbertError(f"{path} cannot be written: {error.strerror}.") from error


def _write(plain: list[dict[str, Any]], names: Sequence[str], path: Path) -> None:
    if path.suffix == ".parquet":
        import pyarrow as arrow
        from pyarrow import parquet

        kinds = {"month": arrow.string(), "articles": arrow.int64(), "negatives": arrow.int64()}
        schema = arrow.schema([(name, kinds.get(name, arrow.float64())) for name in names])
        parquet.write_table(arrow.Table.from_pylist(plain, schema), path)
        return
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, names)
        writer.writeheader()
        writer.writerows(plain)


def table(rows: Sequence[IndexRow], *, standardised: bool = True, running: str | None = None) -> Table:
    """The rows for a terminal; the one of the month ``running`` is marked as not over."""
    result = Table(title="monthly narrative index (Asia/Seoul)", title_justify="left", box=None)
    for name in ("month", "articles", "negative", "share", "95 % interval", "mean probability"):
        result.add_column(name, justify="left" if name == "month" else "right")
    if standardised:
        result.add_column("standardised", justify="right")
    for row in rows:
        interval = (
            "·"
            if row.share_low is None or row.share_high is None
            else f"{row.share_low:.3f} - {row.share_high:.3f}"
        )
        cells = [
            f"{row.month} (so far)" if row.month == running else row.month,
            str(row.articles),
            str(row.negatives),
            _plain(row.share),
            interval,
            _plain(row.mean_probability),
        ]
        if standardised:
            cells.append("·" if row.standardised is None else f"{row.standardised:+.2f}")
        result.add_row(*cells)
    return result


def _plain(value: float | None) -> str:
    return "·" if value is None else f"{value:.3f}"
