"""Ids of messages that stand in a file without one."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from schemas.messages import RawMessage
from worker.history.messages import read_messages
from worker.line_ids import content_id, line_id

CHAT = "ㅋㅋ"
NEWS = {"title": "[속보] 상장", "published_at": "2026-01-05T00:00:00Z"}


def ids_of(path: Path, lines: list[str]) -> list[str | None]:
    """The ids that `kbert replay` gives them."""
    body = "".join(f"{line}\n" for line in lines).encode()
    path.write_bytes(gzip.compress(body) if path.suffix == ".gz" else body)
    return [one.id for one in read_messages(path, 10_000) if isinstance(one, RawMessage)]


def test_equal_lines_of_chat_are_two_messages() -> None:
    line = CHAT.encode()
    message = RawMessage(text=CHAT)
    assert line_id(message, line, 12) == line_id(message, line, 12)
    assert line_id(message, line, 12) != line_id(message, line, 13)
    assert line_id(message, line, 12).startswith("line-12-")


@pytest.mark.parametrize(
    ("fields", "wherever"),
    [
        (NEWS, True),
        (NEWS | {"kind": "chat"}, False),
        ({"title": "오늘의 시황"}, False),  # every day's
        ({"text": CHAT, "published_at": NEWS["published_at"]}, False),
    ],
)
def test_only_news_with_its_time_is_the_same_wherever_it_stands(
    fields: dict[str, Any], wherever: bool
) -> None:
    line, message = json.dumps(fields).encode(), RawMessage.model_validate(fields)
    ids = {line_id(message, line, number) for number in (1, 2)}
    assert (ids == {content_id(line)}) is wherever
    assert len(ids) == (1 if wherever else 2)


def test_a_file_is_known_under_any_name_and_another_days_is_not(tmp_path: Path) -> None:
    """Of a `today.jsonl` that was replayed each day only the first day's messages were counted."""
    monday = [*(f"{n}층 탈출" for n in range(20)), CHAT, CHAT, json.dumps(NEWS)]
    tuesday = [*(f"{n}층 물림" for n in range(20)), json.dumps(NEWS)]
    first = ids_of(tmp_path / "today.jsonl", monday)
    assert len(set(first)) == 23
    assert ids_of(tmp_path / "monday.jsonl.gz", monday) == first
    second = ids_of(tmp_path / "today.jsonl", tuesday)
    assert set(first) & set(second) == {first[-1]} == {second[-1]}
    # A line that was corrected leaves the others what they were.
    assert ids_of(tmp_path / "today.jsonl", ["다른 글", *monday[1:]])[1:] == first[1:]


def test_rows_of_a_table_have_ids_too(tmp_path: Path) -> None:
    rows = ids_of(tmp_path / "today.csv", ["text", CHAT, CHAT])
    assert len(set(rows)) == 2
    assert set(rows).isdisjoint(ids_of(tmp_path / "today.csv", ["text", "다른 글", "또 다른 글"]))
