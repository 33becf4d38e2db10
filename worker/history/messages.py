"""Raw messages out of a file, one after another."""

import csv
import gzip
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from io import TextIOWrapper
from pathlib import Path
from typing import Any, BinaryIO, Final, cast

import orjson

from schemas.messages import RawMessage
from worker.errors import ConfigurationError, KbertError
from worker.history.formulas import unescape_formula
from worker.json_object import json_object
from worker.line_ids import line_id
from worker.source.decoding import BadMessageError, decode

_ROWS: Final = 1_000
_FIELDS: Final = (*RawMessage.model_fields, "author_hash")
_MOST_CELL: Final = 64 * 1024**2
"""Characters of a CSV cell; more of them are a quote that nothing closes."""


@dataclass(frozen=True, slots=True)
class BadLine:
    """What cannot be sent."""

    place: str
    reason: str


def read_messages(path: Path, max_bytes: int) -> Iterator[RawMessage | BadLine | None]:
    """The messages of a .jsonl, .csv or .parquet file, the first two also gzipped; a piece at a time.

    None for a piece without a message, so that whoever reads may stop within a file of nothing else.

    A line of JSONL is read as a record of the raw topic is; of a table, the columns that a raw message
    has. A message without an id gets one from its line, so that it is known again when the file is sent
    twice. A signal has no author, only its hash, which then stands in.

    Raises:
        ConfigurationError: the ending is none of these, or the table has no column with text.
        KbertError: the file cannot be read.
    """
    payloads = _reader(path)
    try:
        for number, payload in payloads(path, max_bytes):
            if not payload:
                yield None
                continue
            place = f"{path.name}:{number}"
            if isinstance(payload, orjson.JSONEncodeError):
                yield BadLine(place, f"a value of it has no JSON: {payload}")
                continue
            try:
                message = decode(payload, max_bytes)
            except BadMessageError as error:
                yield BadLine(place, error.detail)
                continue
            known: dict[str, str] = {}
            if message.id is None:
                known["id"] = line_id(message, payload, number)
            if message.author is None and b'"author_hash"' in payload:
                author = json_object(payload).get("author_hash")
                if isinstance(author, str) and author:
                    known["author"] = author
            yield message.model_copy(update=known) if known else message
    except (OSError, EOFError, zlib.error, csv.Error, UnicodeDecodeError) as error:
        raise KbertError(f"{path} cannot be read to its end: {error}.") from error


_Payload = bytes | orjson.JSONEncodeError
_Payloads = Callable[[Path, int], Iterator[tuple[int, _Payload]]]


def _reader(path: Path) -> _Payloads:
    readers: dict[str, _Payloads] = {
        ".jsonl": _jsonl,
        ".jsonl.gz": _jsonl,
        ".csv": _csv,
        ".csv.gz": _csv,
        ".parquet": _parquet,
    }
    reader = next((readers[ending] for ending in readers if path.name.lower().endswith(ending)), None)
    if reader is None:
        raise ConfigurationError(f"{path} ends in none of {', '.join(readers)}: name it so.")
    return reader


def _open(path: Path) -> BinaryIO:
    return cast(BinaryIO, gzip.open(path) if path.suffix == ".gz" else path.open("rb"))


def _jsonl(path: Path, max_bytes: int) -> Iterator[tuple[int, _Payload]]:
    with _open(path) as file:
        number, most = 0, max_bytes + 2
        goes_on = False
        # Bounded, so that a file of another kind without a line end is not read whole.
        while line := file.readline(most):
            is_rest = goes_on
            goes_on = len(line) == most and not line.endswith(b"\n")
            number += not is_rest
            payload = line if goes_on else line.rstrip(b"\r\n")
            # The beginning is refused as too large; the rest is no message of its own.
            yield number, b"" if is_rest else payload


def _csv(path: Path, max_bytes: int) -> Iterator[tuple[int, _Payload]]:
    csv.field_size_limit(max(_MOST_CELL, max_bytes))  # past it the file ends: a long row is refused alone
    with _open(path) as file, TextIOWrapper(file, encoding="utf-8-sig", newline="") as text:
        rows = csv.DictReader(text, strict=True)
        _check(path, rows.fieldnames or ())
        for row in rows:
            fields = {name: unescape_formula(cell) for name in _FIELDS if (cell := row.get(name))}
            yield rows.line_num, _payload(fields)


def _parquet(path: Path, max_bytes: int) -> Iterator[tuple[int, _Payload]]:
    del max_bytes  # a row is measured when it is decoded
    try:
        import pyarrow
        from pyarrow import parquet
    except ModuleNotFoundError as error:
        raise ConfigurationError("Parquet needs pyarrow: pip install 'kbert-stream[history]'.") from error
    try:
        file = parquet.ParquetFile(path)
        columns = [name for name in file.schema_arrow.names if name in _FIELDS]
        _check(path, columns)
        number = 0
        for batch in file.iter_batches(batch_size=_ROWS, columns=columns):
            # Nanoseconds, which pandas' tables have, come as pandas' own type, or not at all without it.
            times = [
                field.with_type(pyarrow.timestamp("us", field.type.tz))
                if pyarrow.types.is_timestamp(field.type) and field.type.unit == "ns"
                else field
                for field in batch.schema
            ]
            for row in batch.cast(pyarrow.schema(times), safe=False).to_pylist():
                number += 1
                yield number, _payload(row)
    except pyarrow.ArrowException as error:
        raise KbertError(f"{path} is not Parquet: {error}.") from error


def _check(path: Path, columns: Iterable[str]) -> None:
    if not {"text", "title", "body"} & set(columns):
        raise ConfigurationError(f"{path} has no column text, title or body: give its columns these names.")


def _payload(row: Mapping[str, Any]) -> _Payload:
    """The row as a record of the raw topic, or why it is none; an empty cell is no value."""
    fields = {name: row[name] for name in _FIELDS if row.get(name) not in (None, "")}
    try:
        return orjson.dumps(fields, option=orjson.OPT_UTC_Z)
    except orjson.JSONEncodeError as error:
        return error
