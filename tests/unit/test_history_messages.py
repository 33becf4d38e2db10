"""Lines of a file that are no message, or more than one could take them for."""

import codecs
import csv
import gzip
import json
import random
import zlib
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.messages import RawMessage
from worker.clients.bots.recorded import read_signals
from worker.errors import KbertError
from worker.history.columns import Column
from worker.history.formulas import escape_formula, unescape_formula
from worker.history.messages import BadLine, read_messages
from worker.history.writing import STANDARD_OUTPUT, format_of, writer

MOST = 200


def read(path: Path, body: bytes) -> list[RawMessage | BadLine]:
    path.write_bytes(gzip.compress(body) if path.suffix == ".gz" else body)
    return [found for found in read_messages(path, MOST) if found is not None]


def texts(found: list[RawMessage | BadLine]) -> list[str | None]:
    return [one.text if isinstance(one, RawMessage) else f"refused {one.place}" for one in found]


@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
@pytest.mark.parametrize("name", ["m.jsonl", "m.jsonl.gz"])
@pytest.mark.parametrize("length", [MOST + 1, MOST + 2, MOST + 3, 2 * MOST + 4, 2 * MOST + 5, 5_000])
def test_a_line_that_is_too_long_is_refused_as_one(
    tmp_path: Path, length: int, name: str, end: bytes
) -> None:
    """Its end was sent as a message of plain text, under an id of its own."""
    found = read(tmp_path / name, b"one" + end + b"x" * length + end + b"three" + end)
    assert texts(found) == ["one", f"refused {name}:2", "three"]
    assert isinstance(found[2], RawMessage)
    assert (found[2].id or "").startswith("line-3-")


@pytest.mark.parametrize("end", [b"", b"\n", b"\r\n"])
def test_the_longest_line_that_is_taken(tmp_path: Path, end: bytes) -> None:
    assert texts(read(tmp_path / "m.jsonl", b"x" * MOST + end)) == ["x" * MOST]
    assert texts(read(tmp_path / "m.jsonl", b"x" * (MOST + 1) + end)) == ["refused m.jsonl:1"]
    assert texts(read(tmp_path / "m.jsonl", b"x" * 5_000 + end)) == ["refused m.jsonl:1"]


@pytest.mark.parametrize("name", ["m.csv", "m.csv.gz"])
@pytest.mark.parametrize("length", [MOST + 1, 200_000])
def test_a_row_that_is_too_long_is_refused_alone(tmp_path: Path, length: int, name: str) -> None:
    """Nothing behind it was read."""
    found = read(tmp_path / name, b"id,text\n1,one\n2," + b"x" * length + b"\n3,three\n")
    assert texts(found) == ["one", f"refused {name}:3", "three"]


COLUMNS = [Column(name, "string") for name in ("id", "source", "text")]
FORMULAS = ("=1+1", "+82 10", "-3%", "@all", "\t=1", "\r=1", "'=1", "''-1")


def exported(path: Path, told: list[str]) -> list[str | None]:
    """The texts as they are read from an export in CSV."""
    with writer(path, "csv", COLUMNS) as rows:
        for number, text in enumerate(told):
            rows.write({"id": f"{number}", "source": text[:9], "text": text})
    found = [one for one in read_messages(path, 100_000) if isinstance(one, RawMessage)]
    assert [(one.id, one.source) for one in found] == [(f"{n}", text[:9]) for n, text in enumerate(told)]
    return [one.text for one in found]


def test_line_ends_within_a_text_come_back_from_csv(tmp_path: Path) -> None:
    """A lone carriage return stood without quotes, and ended the row."""
    told = ["first\rBTC moon", "a\nb", "a\r\nb", '"\r"', "a,b"]
    assert exported(tmp_path / "m.csv", told) == told


@settings(max_examples=50, deadline=None)
@given(
    st.lists(
        st.text(
            st.sampled_from("'=+-@\t\r\n\",; 1비") | st.characters(exclude_categories=["Cs"]), max_size=12
        ),
        max_size=20,
    )
)
def test_every_text_comes_back_from_csv(tmp_path_factory: pytest.TempPathFactory, drawn: list[str]) -> None:
    told = [f"{text}." for text in drawn]  # a blank text is no message
    assert exported(tmp_path_factory.mktemp("csv") / "m.csv", told) == told
    assert [unescape_formula(escape_formula(text)) for text in drawn] == drawn


@pytest.mark.parametrize("text", FORMULAS)
def test_no_cell_of_csv_begins_as_a_formula(tmp_path: Path, text: str) -> None:
    with writer(tmp_path / "m.csv", "csv", [*COLUMNS, Column("score", "number")]) as rows:
        rows.write({"id": "-1", "source": "room", "text": text, "score": -0.5})
    with (tmp_path / "m.csv").open(encoding="utf-8-sig", newline="") as file:
        (row,) = csv.DictReader(file)
    assert row == {"id": "'-1", "source": "room", "text": f"'{text}", "score": "-0.5"}
    assert exported(tmp_path / "m.csv", [text]) == [text]


@pytest.mark.parametrize(
    ("fields", "author"),
    [
        ({"author_hash": "00ff"}, "00ff"),
        ({"author_hash": "00ff", "author": "kim"}, "kim"),
        ({"author_hash": None}, None),
        ({"author_hash": ""}, None),
        ({"author_hash": 7}, None),
        ({"author_hash": ["00ff"]}, None),
        ({"meta": {"author_hash": "00ff"}}, None),
    ],
)
def test_a_hash_stands_in_for_the_author_where_the_message_has_one(
    tmp_path: Path, fields: dict[str, Any], author: str | None
) -> None:
    """One in a nested object ended the replay with a traceback, in the middle of the file."""
    (found,) = read(tmp_path / "m.jsonl", json.dumps({"id": "1", "text": "비트", **fields}).encode())
    assert isinstance(found, RawMessage)
    assert found.author == author


def test_plain_text_may_talk_of_an_author_hash(tmp_path: Path) -> None:
    text = 'what is "author_hash"?'
    (found,) = read(tmp_path / "m.jsonl", text.encode())
    assert isinstance(found, RawMessage)
    assert (found.text, found.author) == (text, None)


@pytest.mark.parametrize("unit", ["ns", "us", "ms", "s"])
@pytest.mark.parametrize("zone", [None, "UTC", "Asia/Seoul"])
def test_times_of_a_table_whatever_their_unit(tmp_path: Path, unit: str, zone: str | None) -> None:
    """Nanoseconds, which pandas writes, came as its own type: the replay ended with a traceback."""
    arrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    at = datetime(2026, 3, 1, 9, 30, tzinfo=UTC)
    times = arrow.array([at, None], arrow.timestamp(unit, tz=zone))
    if unit == "ns":  # one that no microsecond is
        times = arrow.array([int(at.timestamp()) * 10**9 + 1, None], arrow.timestamp(unit, tz=zone))
    table = arrow.table({"text": ["비트", "이더"], "published_at": times})
    parquet.write_table(table, tmp_path / "m.parquet")
    found = list(read_messages(tmp_path / "m.parquet", MOST))
    assert [one.published_at for one in found if isinstance(one, RawMessage)] == [at, None]


@pytest.mark.parametrize("value", [timedelta(seconds=1), Decimal(7), b"7"])
def test_a_row_that_has_no_json_is_refused_alone(tmp_path: Path, value: object) -> None:
    arrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    table = arrow.table({"text": ["하나", "둘"], "id": arrow.array([value, None])})
    parquet.write_table(table, tmp_path / "m.parquet")
    found = [one for one in read_messages(tmp_path / "m.parquet", MOST) if one is not None]
    assert texts(found) == ["refused m.parquet:1", "둘"]


def _with_a_damaged_block(content: bytes) -> bytes:
    """Gzipped, with bytes in its middle that no decoder takes."""
    whole = gzip.compress(content)
    for place in range(20, len(whole) - 20):
        damaged = whole[:place] + b"\xff" * 8 + whole[place + 8 :]
        try:
            gzip.decompress(damaged)
        except zlib.error:
            return damaged
        except (OSError, EOFError):
            continue
    raise AssertionError("no damage that zlib refuses")


@pytest.mark.parametrize(
    "damage", [_with_a_damaged_block, lambda content: gzip.compress(content)[:-20]], ids=["block", "end"]
)
@pytest.mark.parametrize(
    "read_all", [lambda path: list(read_messages(path, MOST)), lambda path: list(read_signals(path))]
)
def test_a_damaged_file_is_one_sentence(
    tmp_path: Path, damage: Callable[[bytes], bytes], read_all: Callable[[Path], object]
) -> None:
    rng = random.Random(1)
    path = tmp_path / "m.jsonl.gz"
    # Blank lines are nothing to either reader, so both come to the damage.
    path.write_bytes(damage(bytes(rng.choices(b" \n", k=4_000))))
    with pytest.raises(KbertError, match="cannot be read"):
        read_all(path)


def test_a_csv_file_has_a_byte_order_mark_and_standard_output_none(
    tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    """Korean Excel takes a file without it for CP949."""
    for path in (tmp_path / "m.csv", STANDARD_OUTPUT):
        with writer(path, "csv", COLUMNS) as rows:
            rows.write({"id": "1", "source": "방", "text": "비트"})
    whole = (tmp_path / "m.csv").read_bytes()
    plain = "id,source,text\n1,방,비트\n".encode()
    assert whole == codecs.BOM_UTF8 + plain
    assert capfdbinary.readouterr().out == plain
    assert texts(read(tmp_path / "m.csv", whole)) == ["비트"]


@pytest.mark.parametrize("name", ["file/x.csv", "x" * 300 + ".csv", "x" * 245 + ".csv"])
def test_a_file_that_cannot_be_is_one_sentence(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").touch()
    with (
        pytest.raises(KbertError, match=r"\.csv cannot be written: (Not a directory|File name too long)\.$"),
        writer(tmp_path / name, format_of(tmp_path / name), COLUMNS),
    ):
        pass
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]
