import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from schemas.labels import EMOTIONS, SENTIMENTS
from tests.unit.training_toys import toy_rows, write_jsonl
from worker.training.articles import load_articles
from worker.training.baseline import TfidfBaseline
from worker.training.datasets import PACKAGED, DatasetError, LabelledText, load_all, load_labelled
from worker.training.public import PublicDataError, public_rows
from worker.training.unlabelled import load_texts


def test_the_packaged_texts_follow_the_guide() -> None:
    rows = load_labelled(PACKAGED[0])
    assert len(rows) == 4359
    assert {row.file for row in rows} == {
        "chat_board",
        "chat_community",
        "chat_gallery",
        "chat_live",
        "news",
        "news_wire",
    }


def test_jsonl_csv_and_gz_give_the_same_rows(tmp_path: Path) -> None:
    rows = toy_rows(3)
    plain = write_jsonl(rows, tmp_path / "a.jsonl")
    packed = tmp_path / "a.jsonl.gz"
    packed.write_bytes(gzip.compress(plain.read_bytes()))
    table = tmp_path / "a.csv"
    names = list(rows[0].model_dump(exclude={"second"}))
    lines = [",".join(names)]
    for row in rows:
        values = row.model_dump(mode="json", exclude={"second"})
        lines.append(",".join("|".join(v) if isinstance(v, list) else str(v) for v in values.values()))
    table.write_text("\n".join(lines) + "\n", encoding="utf-8")
    assert load_labelled(plain) == load_labelled(packed) == load_labelled(table) == rows


def test_two_annotators_make_a_target_between_them(tmp_path: Path) -> None:
    first = toy_rows(1)[0]
    other = {
        "sentiment_strength": "weak_neg" if first.sentiment_strength != "weak_neg" else "neutral",
        "action_signal": first.action_signal,
        "emotions": [name for name in EMOTIONS if name not in first.emotions],
        "certainty": 1.0 - first.certainty,
        "relevance": first.relevance,
        "toxicity": first.toxicity,
    }
    path = tmp_path / "two.jsonl"
    path.write_text(json.dumps(first.model_dump(mode="json") | {"second": other}), encoding="utf-8")
    targets = load_labelled(path)[0].example().targets
    alone = first.example().targets
    assert targets["head_act"] == alone["head_act"]
    assert targets["head_emo"] == (0.5,) * len(EMOTIONS)
    assert targets["head_reg"] == (0.5, first.relevance, first.toxicity)
    sentiment = targets["head_senti"]
    assert isinstance(sentiment, tuple)
    assert sorted(sentiment) == [0.0, 0.0, 0.0, 0.5, 0.5]
    assert sentiment[SENTIMENTS.index(first.sentiment_strength)] == 0.5


def test_a_row_without_register_belongs_to_its_file(tmp_path: Path) -> None:
    path = write_jsonl([toy_rows(1)[0].model_copy(update={"file": ""})], tmp_path / "wire.jsonl")
    assert load_labelled(path)[0].file == "wire"


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"sentiment_strength": "very_pos"}, "sentiment_strength"),
        ({"certainty": 1.2}, "certainty"),
        ({"emotions": ["joy"]}, "emotions"),
        ({"text": ""}, "text"),
        ({"text": " \n"}, "text"),
        ({"text": "\ud83d 간다"}, "text"),
    ],
)
def test_a_wrong_label_names_file_line_and_field(tmp_path: Path, change: dict[str, Any], field: str) -> None:
    good, bad = (row.model_dump(mode="json") for row in toy_rows(2))
    path = tmp_path / "bad.jsonl"
    path.write_text(f"{json.dumps(good)}\n\n{json.dumps(bad | change)}\n", encoding="utf-8")
    with pytest.raises(DatasetError, match=rf"bad\.jsonl:3: {field}"):
        load_labelled(path)


def test_a_broken_line_names_itself(tmp_path: Path) -> None:
    path = tmp_path / "bad.jsonl"
    path.write_text('{"text": \n', encoding="utf-8")
    with pytest.raises(DatasetError, match=r"bad\.jsonl:1: not JSON"):
        load_labelled(path)


def test_other_endings_empty_and_missing_files_are_refused(tmp_path: Path) -> None:
    for name, content, message in (("a.txt", "x", "ends in"), ("b.jsonl", "", "no rows")):
        (tmp_path / name).write_text(content, encoding="utf-8")
        with pytest.raises(DatasetError, match=message):
            load_labelled(tmp_path / name)
    with pytest.raises(DatasetError, match="cannot be read"):
        load_labelled(tmp_path / "absent.jsonl")


def test_a_text_in_two_files_counts_once(tmp_path: Path) -> None:
    rows = toy_rows(3)
    one, two = write_jsonl(rows, tmp_path / "1.jsonl"), write_jsonl(rows[1:], tmp_path / "2.jsonl")
    assert load_all([one, two]) == rows


READERS: dict[str, Callable[[Path], object]] = {
    "labelled": load_labelled,
    "articles": lambda path: load_articles([path]),
    "unlabelled": lambda path: list(load_texts([path])),
    "public": lambda path: list(public_rows(path.parent, path.name.removesuffix(".jsonl.gz"))),
}


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("damage", ["middle", "end", "header"])
def test_a_damaged_archive_is_one_sentence(tmp_path: Path, reader: str, damage: str) -> None:
    lines = "".join(f"{json.dumps(row.model_dump(mode='json'))}\n" for row in toy_rows(300))
    raw = bytearray(gzip.compress(lines.encode()))
    if damage == "middle":
        raw[20:80] = bytes(60)
    else:
        raw = raw[: len(raw) // 2] if damage == "end" else bytearray(b"plain")
    path = tmp_path / "a.jsonl.gz"
    path.write_bytes(raw)
    with pytest.raises((DatasetError, PublicDataError), match=r"a\.jsonl\.gz: cannot be read"):
        READERS[reader](path)


def test_public_rows_may_begin_with_a_byte_order_mark(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress('{"text": "하나"}\n'.encode("utf-8-sig")))
    assert list(public_rows(tmp_path, "a")) == [{"text": "하나"}]


def test_a_quote_left_open_names_file_and_line(tmp_path: Path) -> None:
    path = tmp_path / "open.csv"
    path.write_text('text,source\n"비트 가자,chat\n' + "이더 간다,chat\n" * 12_000, encoding="utf-8")
    with pytest.raises(DatasetError, match=r"open\.csv:\d+: not CSV, perhaps for a quote left open"):
        load_labelled(path)


@pytest.mark.parametrize("rows", [toy_rows(1), toy_rows(30)[::3]], ids=["one", "of one class"])
def test_the_baseline_says_what_it_lacks(rows: list[LabelledText]) -> None:
    with pytest.raises(DatasetError, match=f"TF-IDF cannot learn from {len(rows)} texts"):
        TfidfBaseline(rows)
