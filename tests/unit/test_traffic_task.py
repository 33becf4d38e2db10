"""What the traffic head reads, and what comes out."""

import io
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from tokenizers import Tokenizer

from schemas.messages import RawMessage
from schemas.signals import ModelInfo, TrafficSignal
from tests.checkpoints import unigram_tokenizer, wordpiece_tokenizer
from tests.fake_traffic import FakeTrafficModel, articles
from worker.commands.classify import classify_stream
from worker.inference.tokenising import Tokeniser
from worker.narrative.build import build_from_articles, build_from_signals
from worker.narrative.index import monthly_index
from worker.settings import Settings, load_settings
from worker.sink.topics import topic_names
from worker.tasks import TrafficTask

TASK = TrafficTask(ModelInfo(name="m", revision="0"), "[SEP]")


@pytest.mark.parametrize(
    ("message", "text"),
    [
        ({"title": "제목", "body": "본문"}, "제목 [SEP] 본문"),
        ({"title": "제목"}, "제목"),
        ({"title": "제목", "body": "  "}, "제목"),
        ({"body": "본문"}, "본문"),
        ({"text": "한 줄"}, "한 줄"),
        ({"text": "한 줄", "body": "본문"}, "한 줄 [SEP] 본문"),
        ({"title": " ", "text": "3명이 숨졌다"}, "3명이 숨졌다"),
        ({"text": "", "title": "트럭 추돌", "body": "본문"}, "트럭 추돌 [SEP] 본문"),
    ],
)
def test_title_and_body_are_joined_by_the_separator(message: dict[str, str], text: str) -> None:
    assert TASK.text(RawMessage(**message)) == text


@pytest.mark.parametrize("make", [wordpiece_tokenizer, unigram_tokenizer])
def test_the_separator_is_the_special_token_of_the_tokeniser(make: Callable[[], Tokenizer]) -> None:
    raw = make()
    tokeniser = Tokeniser(raw, max_length=64)
    (ids,) = tokeniser.encode([f"비트 {tokeniser.separator} 이더"])
    separator = raw.token_to_id(tokeniser.separator)
    assert list(ids.ids).count(separator) == 2  # between the two, and at the end
    assert ids.ids[-1] == separator


def _settings() -> Settings:
    return load_settings(_env_file=None)


def test_classify_gives_label_name_and_probability() -> None:
    article = b'{"id": "7", "title": "a", "body": "b", "published_at": "2020-01-31T20:00:00Z"}'
    lines = article + b'\nplain title\n{"x": 1}\n'
    out = io.BytesIO()
    model = FakeTrafficModel()
    assert classify_stream(model, TASK, _settings(), io.BytesIO(lines), out) == (3, 1)  # type: ignore[arg-type]
    first, second, third = (json.loads(line) for line in out.getvalue().splitlines())
    signal = TrafficSignal.model_validate(first)
    assert (signal.id, signal.label_name) == ("7", ("non-negative", "negative narrative")[signal.label])
    assert set(first) == set(TrafficSignal.model_fields)
    assert second["id"].startswith("line-2-")
    assert "error" in third


@pytest.mark.parametrize(
    ("line", "id_"),
    [
        ('{"id": "d", "text": ""}', "d"),
        ('{"id": 7, "likes": 3}', "7"),
        ('{"id": "", "text": ""}', None),
        (f'{{"id": "{"x" * 513}", "text": "글"}}', None),
        ('{"id": true, "text": ""}', None),
        ('{"id": ["d"], "text": "글"}', None),
        ('{"id": "d", "text": ', None),
        ("", None),
    ],
)
def test_a_refused_line_keeps_the_id_that_it_has(line: str, id_: str | None) -> None:
    out = io.BytesIO()
    lines = io.BytesIO(f"{line}\n".encode())
    assert classify_stream(FakeTrafficModel(), TASK, _settings(), lines, out) == (1, 1)  # type: ignore[arg-type]
    answer = json.loads(out.getvalue())
    assert "error" in answer
    assert answer["id"] == id_ if id_ else answer["id"].startswith("line-1-")


def test_the_settings_of_a_pipeline() -> None:
    settings = load_settings(_env_file=None, pipelines=["crypto", "traffic"], traffic={"model": {"ref": "t"}})
    traffic = settings.of("traffic")
    assert (traffic.topics.raw, traffic.topics.signals) == ("raw.traffic", "signals.traffic")
    assert traffic.source.group_id != settings.source.group_id
    assert (traffic.model.ref, settings.of("crypto").model.ref) == ("t", None)
    assert settings.with_model("traffic", "u").of("traffic").model.ref == "u"
    assert set(topic_names(settings).values()) == {
        "raw.crypto",
        "signals.crypto",
        "raw.traffic",
        "signals.traffic",
        "dead-letter",
    }


def test_a_file_of_articles_and_its_signals_give_one_index(tmp_path: Path) -> None:
    rows = articles(300)
    file = tmp_path / "articles.jsonl"
    broken = ["{", json.dumps({"id": "late", "title": "no time"}), json.dumps(rows[3])]
    file.write_text("\n".join([*(json.dumps(row) for row in rows), *broken]), encoding="utf-8")
    built = build_from_articles([file], FakeTrafficModel(), TASK, max_bytes=100_000, max_future=60)
    assert (built.lines, len(built.rejected), built.accumulator.repeats) == (303, 2, 1)
    assert [place for place, _ in built.rejected] == ["articles.jsonl:301", "articles.jsonl:302"]
    again = build_from_signals([_classified(file)], max_future=60)
    assert (again.lines, len(again.rejected), again.accumulator.repeats) == (303, 2, 1)
    assert again.rejected[0][1].startswith("kbert classify could not read it: ")
    assert again.rejected[1] == ("articles.signals:302", "published_at is missing")
    assert monthly_index(again.accumulator.sums()) == monthly_index(built.accumulator.sums())


def test_articles_without_an_id_are_known_by_their_line(tmp_path: Path) -> None:
    """Files of one name, and files that were classified apart, hid each other: ids were line numbers."""
    rows = [{name: row[name] for name in ("title", "body", "published_at")} for row in articles(60)]
    files = [tmp_path / year / "articles.jsonl" for year in ("2020", "2021")]
    for file, part in zip(files, (rows[:30], [rows[3], *rows[30:]]), strict=True):
        file.parent.mkdir()
        file.write_text("".join(json.dumps(row) + "\n" for row in part), encoding="utf-8")
    built = build_from_articles(files, FakeTrafficModel(), TASK, max_bytes=100_000, max_future=60)
    again = build_from_signals([_classified(file) for file in files], max_future=60)
    for one in (built, again):
        assert (one.lines, one.rejected, one.accumulator.repeats) == (61, [], 1)
        assert sum(row.articles for row in monthly_index(one.accumulator.sums())) == 60
    assert monthly_index(again.accumulator.sums()) == monthly_index(built.accumulator.sums())


def test_an_article_with_a_date_without_sense_is_left_out_of_a_file(tmp_path: Path) -> None:
    file = tmp_path / "articles.jsonl"
    rows = articles(4)
    rows[3]["published_at"] = "0001-01-01T00:00:00Z"
    file.write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    built = build_from_articles([file], FakeTrafficModel(), TASK, max_bytes=100_000, max_future=60)
    again = build_from_signals([_classified(file)], max_future=60)
    reason = "published_at: not within the years 1980 to 2100"
    assert built.rejected == [("articles.jsonl:4", reason)]
    assert again.rejected == [("articles.signals:4", reason)]
    assert sum(row.articles for row in monthly_index(built.accumulator.sums())) == 3
    assert monthly_index(again.accumulator.sums()) == monthly_index(built.accumulator.sums())


def test_an_article_dated_in_the_future_is_left_out_of_a_file(tmp_path: Path) -> None:
    """One way counted it in today's month, the other in a month to come."""
    file = tmp_path / "articles.jsonl"
    rows = articles(4)
    now = datetime.now(UTC)
    rows[2]["published_at"] = (now + timedelta(seconds=600)).isoformat()
    rows[3]["published_at"] = (now + timedelta(days=400)).isoformat()
    file.write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    built = build_from_articles([file], FakeTrafficModel(), TASK, max_bytes=100_000, max_future=3_600)
    again = build_from_signals([_classified(file)], max_future=3_600)
    assert built.rejected == [("articles.jsonl:4", "published_at lies in the future")]
    assert again.rejected == [("articles.signals:4", "published_at lies in the future")]
    assert again.accumulator.sums() == built.accumulator.sums()


def _classified(file: Path) -> Path:
    """What `kbert classify` says of a file, beside it."""
    out = io.BytesIO()
    lines = io.BytesIO(file.read_bytes())
    classify_stream(FakeTrafficModel(), TASK, _settings(), lines, out)  # type: ignore[arg-type]
    signals = file.with_suffix(".signals")
    signals.write_bytes(out.getvalue())
    return signals
