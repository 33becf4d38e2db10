"""Rows into a file as they come: Parquet, CSV or JSONL, whole or not at all."""

import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime
from io import TextIOWrapper
from pathlib import Path
from typing import Any, BinaryIO, Final, Literal, Protocol, get_args

import orjson

from worker.errors import ConfigurationError, KbertError
from worker.history.columns import Column, Kind
from worker.history.formulas import escape_formula

Format = Literal["parquet", "csv", "jsonl"]
FORMATS: Final[tuple[Format, ...]] = get_args(Format)
STANDARD_OUTPUT: Final = Path("-")

_ROW_GROUP: Final = 20_000
_SEPARATOR: Final = ";"
"""Between the values of a list in a CSV cell; no symbol and no label holds it."""
_QUOTED: Final = re.compile(r'[",\r\n]')


class Writer(Protocol):
    """Takes records one after another."""

    def write(self, record: Mapping[str, Any]) -> None:
        """One record, nested as in its JSON; times are datetimes in UTC."""
        ...

    def finish(self) -> None:
        """Write what waits, and the end of the file."""
        ...


def format_of(path: Path, given: Format | None = None) -> Format:
    """By ``given``, or by the ending; JSONL on standard output.

    Raises:
        ConfigurationError: the ending says nothing, it is a directory, or Parquet cannot be written there.
    """
    ending = path.suffix.removeprefix(".").lower()
    chosen = given or next((name for name in FORMATS if name == ending), None)
    if path == STANDARD_OUTPUT:
        chosen = chosen or "jsonl"
        if chosen == "parquet":
            raise ConfigurationError("--out - is for jsonl and csv: Parquet needs a file.")
    elif _is_directory(path):
        raise ConfigurationError(f"--out {path} is a directory: name a file.")
    elif chosen is None:
        raise ConfigurationError(
            f"--out {path} ends in none of .parquet, .csv and .jsonl: name it so, or give --format."
        )
    if chosen == "parquet":
        try:
            import pyarrow  # noqa: F401
        except ModuleNotFoundError as error:
            raise ConfigurationError(
                "Parquet needs pyarrow: pip install 'kbert-stream[history]', or take .csv or .jsonl."
            ) from error
    return chosen


@contextmanager
def writer(path: Path, format_: Format, columns: Sequence[Column]) -> Iterator[Writer]:
    """A writer to ``path`` (``-``: standard output).

    The file gets its name when the block ends without an error; until then, and after an error,
    what had that name before stands untouched.

    Raises:
        KbertError: the file cannot be written.
    """
    makers: dict[Format, Callable[[BinaryIO, Sequence[Column]], Writer]] = {
        "parquet": _ParquetWriter,
        "csv": _CsvWriter,
        "jsonl": _JsonlWriter,
    }
    make = makers[format_]
    if path == STANDARD_OUTPUT:
        rows = make(sys.stdout.buffer, columns)
        yield rows
        rows.finish()
        sys.stdout.flush()
        return
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with partial.open("wb") as file:
            rows = make(file, columns)
            yield rows
            rows.finish()
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError as error:
        raise KbertError(f"{path} cannot be written: {error.strerror}.") from error
    finally:
        with suppress(OSError):  # nothing was made where its folder is a file or its name too long
            partial.unlink(missing_ok=True)


def _is_directory(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError:  # the name is too long; opening it says so
        return False


class _JsonlWriter:
    def __init__(self, file: BinaryIO, columns: Sequence[Column]) -> None:
        self._file = file
        del columns  # JSON is nested: it needs none

    def write(self, record: Mapping[str, Any]) -> None:
        self._file.write(orjson.dumps(record, option=orjson.OPT_UTC_Z | orjson.OPT_APPEND_NEWLINE))

    def finish(self) -> None:
        """Nothing waits."""


class _CsvWriter:
    def __init__(self, file: BinaryIO, columns: Sequence[Column]) -> None:
        self._columns = columns
        # Korean Excel takes a file without the byte-order mark for CP949; a pipe's reader wants none.
        encoding = "utf-8" if file is sys.stdout.buffer else "utf-8-sig"
        self._text = TextIOWrapper(file, encoding=encoding, newline="", write_through=True)
        self._row(column.name for column in columns)

    def write(self, record: Mapping[str, Any]) -> None:
        self._row(_cell(column.read(record)) for column in self._columns)

    def finish(self) -> None:
        self._text.flush()
        self._text.detach()

    def _row(self, cells: Iterable[str]) -> None:
        # Not by csv.writer, which leaves a lone carriage return bare: readers end the row there.
        self._text.write(",".join(map(_quoted, cells)) + "\n")


def _quoted(cell: str) -> str:
    doubled = cell.replace('"', '""')
    return f'"{doubled}"' if _QUOTED.search(cell) else cell


def _cell(value: Any) -> str:
    match value:
        case None:
            return ""
        case bool():
            return str(value).lower()
        case datetime():
            return value.isoformat().replace("+00:00", "Z")
        case list():
            return escape_formula(_SEPARATOR.join(value))
        case str():
            return escape_formula(value)
        case _:
            return str(value)


class _ParquetWriter:
    def __init__(self, file: BinaryIO, columns: Sequence[Column]) -> None:
        import pyarrow as arrow
        from pyarrow import parquet

        kinds: dict[Kind, Any] = {
            "string": arrow.string(),
            "strings": arrow.list_(arrow.string()),
            "time": arrow.timestamp("us", tz="UTC"),
            "number": arrow.float64(),
            "integer": arrow.int64(),
            "flag": arrow.bool_(),
        }
        self._columns = columns
        self._schema = arrow.schema([(column.name, kinds[column.kind]) for column in columns])
        self._parquet = parquet.ParquetWriter(file, self._schema, compression="zstd")
        self._waiting: list[list[Any]] = []

    def write(self, record: Mapping[str, Any]) -> None:
        self._waiting.append([column.read(record) for column in self._columns])
        if len(self._waiting) >= _ROW_GROUP:
            self._flush()

    def finish(self) -> None:
        self._flush()
        self._parquet.close()

    def _flush(self) -> None:
        import pyarrow as arrow

        if self._waiting:
            columns = [
                arrow.array(values, field.type)
                for values, field in zip(zip(*self._waiting, strict=True), self._schema, strict=True)
            ]
            self._parquet.write_table(arrow.Table.from_arrays(columns, schema=self._schema))
            self._waiting = []
