"""Lines of a file that are no message, or more than one could take them for."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from schemas.messages import RawMessage
from worker.history.messages import BadLine, read_messages

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
