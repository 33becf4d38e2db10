"""Monthly series from files, put on one regular grid."""

import csv
import io
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Final

from worker.errors import ConfigurationError, KbertError
from worker.narrative.index import IndexRow
from worker.narrative.months import name, number, parse_month

Series = dict[str, float]
"""Month -> value; a month without a value is absent."""

MONTH_COLUMNS: Final = ("month", "date", "period")
_MONTH_OR_DAY: Final = re.compile(r"(\d{4}-\d{2})(?:-\d{2})?")
_THOUSANDS: Final = re.compile(r"-?[1-9]\d{0,2}(?:,\d{3})+(?:\.\d+)?")
_AMBIGUOUS: Final = re.compile(r"-?\d+,\d{3}")  # in Korean 1234, in German 1.234
_DECIMAL_COMMA: Final = re.compile(r"-?\d+,\d+")


class SeriesError(KbertError):
    """A series cannot be used; one sentence says which and why."""


def read_series(path: Path, column: str | None = None, notes: list[str] | None = None) -> dict[str, Series]:
    """The numeric columns of a CSV file, or the one that is asked for.

    The file has a column ``month`` (or ``date``, ``period``) of 2015-01 or 2015-01-31, one row a month, in
    UTF-8 or CP949. Empty cells are months without a value; empty rows, and empty columns without a name,
    are passed over.

    Args:
        path: the file.
        column: the only one to read.
        notes: takes sentences on what could have been meant otherwise.

    Raises:
        SeriesError: the file is not like that; names the line.
    """
    notes = [] if notes is None else notes
    sheet = _read(path, notes)
    time = _month_column(sheet)
    values = [n for n in sheet.names if n != time]
    if column is not None:
        if column not in values:
            raise SeriesError(f"{path} has no column {column}: it has {', '.join(values) or 'no other'}.")
        values = [column]
    return _series(sheet, values, notes)


def read_index(path: Path) -> list[IndexRow]:
    """The rows of a CSV that `kbert narrative index --out` wrote; none where it holds other columns."""
    sheet = _read(path, [])
    own = [field.name for field in fields(IndexRow) if field.name != "month" and field.name in sheet.names]
    if not {"articles", "negatives", "share", "share_low", "share_high"} <= set(own):
        return []
    columns = _series(sheet, own, [])
    months = sorted(set().union(*columns.values()))
    for column in ("articles", "negatives"):
        for month in months:
            if month not in columns[column]:
                raise SeriesError(f"{path} has no {column} in the month {month}.")

    def value(column: str, month: str) -> float | None:
        return columns.get(column, {}).get(month)

    return [
        IndexRow(
            month,
            int(columns["articles"][month]),
            int(columns["negatives"][month]),
            value("share", month),
            value("share_low", month),
            value("share_high", month),
            value("mean_probability", month),
            value("standardised", month),
        )
        for month in months
    ]


def index_series(rows: Sequence[IndexRow], column: str) -> Series:
    """One column of the index; months where it is not defined are absent."""
    known = [field.name for field in fields(IndexRow) if field.name != "month"]
    if column not in known:
        raise SeriesError(f"The index has no column {column}: it has {', '.join(known)}.")
    return {row.month: float(value) for row in rows if (value := getattr(row, column)) is not None}


def shifted(series: Series, lag: int) -> Series:
    """The series ``lag`` months before each month; negative: after it."""
    return {name(number(month) + lag): value for month, value in series.items()}


def common_months(series: Mapping[str, Series]) -> list[str]:
    """The months in which every series has a value: one unbroken run.

    Raises:
        SeriesError: there is none, or a month within it is missing.
    """
    first = max((min(s) for s in series.values() if s), default="")
    last = min((max(s) for s in series.values() if s), default="")
    empty = [key for key, s in series.items() if not s]
    if empty:
        raise SeriesError(f"The series {empty[0]} has no value at all.")
    if first > last:
        spans = "; ".join(f"{key} {min(s)} to {max(s)}" for key, s in series.items())
        raise SeriesError(f"The series have no month in common: {spans}.")
    months = [name(n) for n in range(number(first), number(last) + 1)]
    for key, values in series.items():
        missing = [month for month in months if month not in values]
        if missing:
            raise SeriesError(
                f"The series {key} lacks {len(missing)} of the {len(months)} months from {first} to {last} "
                f"(the first is {missing[0]}): lags need a grid without holes, so fill or cut it."
            )
    return months


@dataclass(frozen=True, slots=True)
class _Sheet:
    path: Path
    names: list[str]
    rows: list[tuple[int, list[str]]]
    """Line number and cells of each row that is not empty; none has fewer cells than there are names."""


def _read(path: Path, notes: list[str]) -> _Sheet:
    text = _text(path, notes)
    try:
        reader = csv.reader(io.StringIO(text, newline=""), strict=True)
        names = [cell.strip() for cell in next(reader, [])]
        rows = [(reader.line_num, [cell.strip() for cell in row]) for row in reader]
    except csv.Error as error:
        raise SeriesError(f"{path} cannot be read: {error}.") from error
    rows = [(line, row + [""] * (len(names) - len(row))) for line, row in rows if any(row)]
    empty = {n for n, name in enumerate(names) if not name and not any(row[n] for _, row in rows)}
    kept = [n for n in range(len(names)) if n not in empty]
    width = len(names)
    rows = [(line, [row[n] for n in kept] + row[width:]) for line, row in rows]
    return _Sheet(path, [names[n] for n in kept], rows)


def _text(path: Path, notes: list[str]) -> str:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise SeriesError(f"{path} cannot be read: {error}.") from error
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        pass
    try:
        text = content.decode("cp949")
    except UnicodeDecodeError:
        raise SeriesError(f"{path} is neither UTF-8 nor CP949: save it as CSV UTF-8.") from None
    notes.append(f"{path} is no UTF-8 and was read as CP949.")
    return text


def _month_column(sheet: _Sheet) -> str:
    path, names = sheet.path, sheet.names
    time = next((n for n in names if n.lower() in MONTH_COLUMNS), None)
    if time is not None:
        return time
    for separator, called in ((";", "semicolons"), ("\t", "tabs")):
        if any(separator in n for n in names):
            raise SeriesError(f"{path} separates its columns with {called}: save it with commas.")
    raise SeriesError(f"{path} has no column month: its columns are {', '.join(names) or 'none'}.")


def _series(sheet: _Sheet, values: Sequence[str], notes: list[str]) -> dict[str, Series]:
    path, names = sheet.path, sheet.names
    time = _month_column(sheet)
    for value in (time, *values):
        if not value:
            raise SeriesError(f"{path} has a column with values and without a name: name it in the header.")
        if names.count(value) > 1:
            raise SeriesError(f"{path} names the column {value!r} twice: rename one of the two.")
    places = {value: names.index(value) for value in (time, *values)}
    result: dict[str, Series] = {value: {} for value in values}
    seen: set[str] = set()
    thousands = ""
    for line, row in sheet.rows:
        if len(row) > len(names):
            raise SeriesError(
                f"{path}:{line} has more cells than the header: write a number with commas in quotes."
            )
        month = _month(row[places[time]], path, line)
        if month in seen:
            raise SeriesError(f"{path}:{line} repeats the month {month}: give one row a month.")
        seen.add(month)
        for value in values:
            cell = row[places[value]]
            if cell:
                result[value][month] = _number(cell, path, line, value)
                if not thousands and _AMBIGUOUS.fullmatch(cell):
                    thousands = f"{path}:{line} has {cell!r} in the column {value}"
    if thousands:
        notes.append(f"{thousands}: its commas were read as thousands.")
    return result


def _month(cell: str, path: Path, line: int) -> str:
    match = _MONTH_OR_DAY.fullmatch(cell)
    try:
        return parse_month(match[1] if match else cell)
    except ConfigurationError as error:
        raise SeriesError(f"{path}:{line}: {error}") from None


def _number(cell: str, path: Path, line: int, column: str) -> float:
    try:
        value = float(cell.replace(",", "") if _THOUSANDS.fullmatch(cell) else cell)
    except ValueError:
        value = math.nan
    hint = ": write its decimals after a point" if _DECIMAL_COMMA.fullmatch(cell) else ""
    if "_" in cell or not math.isfinite(value):  # float("1_15") is 115
        raise SeriesError(f"{path}:{line} has {cell!r} in the column {column}, which is no number{hint}.")
    return value
