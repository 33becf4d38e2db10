"""Everyday texts teach that they have nothing to do with the market, and nothing that is not sure."""

import gzip
import json
import math
from pathlib import Path
from typing import Any

import pytest

from worker.training.background import RELEVANCE, load_background
from worker.training.examples import Example
from worker.training.public import FILES, INTENTS, PublicDataError, load_public

ROWS: dict[str, list[dict[str, Any]]] = {
    "3i4k_intent": [
        {"text": "내일 비가 오니", "label": "question"},
        {"text": "어제 산에 갔다", "label": "statement"},
        {"text": "문 좀 닫아", "label": "command"},
    ],
    "chatbot_smalltalk": [{"text": "배고프다", "label": "daily"}],
    "kocohub_unlabeled": [{"text": "이번 드라마에서 연기 잘하던데요", "title": "배우 새 드라마 촬영 시작"}],
    "nsmc_rating": [
        {"text": "두 시간이 어떻게 갔는지 모르게 재미있었다", "rating": 9},
        {"text": "최고다", "rating": 10},
        {"text": "주식으로 돈을 날린 남자의 이야기라 답답했다", "rating": 3},
    ],
    "kote": [{"text": "배송이 일주일이나 걸려서 환불 받았습니다", "labels": []}],
    "kmhas": [{"text": "비트코인으로 번 돈 자랑하는 꼴이 참 우습다", "labels": []}],
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, rows in ROWS.items():
        with gzip.open(tmp_path / f"{name}.jsonl.gz", "wt", encoding="utf-8") as out:
            out.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    return tmp_path


def test_everyday_texts_are_irrelevant_and_market_talk_is_left_out(folder: Path) -> None:
    examples = {example.text: example for example in load_background(folder)}
    assert set(examples) == {
        "내일 비가 오니",
        "어제 산에 갔다",
        "배고프다",
        "배우 새 드라마 촬영 시작",
        "이번 드라마에서 연기 잘하던데요",
        "두 시간이 어떻게 갔는지 모르게 재미있었다",
        "배송이 일주일이나 걸려서 환불 받았습니다",
    }
    for example in examples.values():
        assert _scores(example)[1] == RELEVANCE
        assert "head_emo" not in example.targets
    review = examples["두 시간이 어떻게 갔는지 모르게 재미있었다"]
    assert set(review.targets) == {"head_reg"}, "what else a review says of prices is not known"
    assert math.isnan(_scores(review)[2])


def _scores(example: Example) -> tuple[float, ...]:
    scores = example.targets["head_reg"]
    assert isinstance(scores, tuple)
    return scores


def test_a_missing_set_is_named(folder: Path) -> None:
    (folder / "kote.jsonl.gz").unlink()
    with pytest.raises(PublicDataError, match="kote"):
        load_background(folder)


KOTE = [f"emotion {n}" for n in range(44)]
PUBLIC: dict[str, list[dict[str, Any]]] = {
    "nsmc_rating": [{"text": "좋다", "rating": 10}],
    "kote": [{"text": "글", "labels": KOTE}],
    "kocohub_hate": [{"text": "글", "hate": "none"}],
    "kmhas": [{"text": "글", "labels": ["not_hate_speech"]}, {"text": "글", "labels": ["age"]}],
    "apeach_hate": [{"text": "글", "hate": 0}],
    "curse_detection": [{"text": "글", "curse": 1}],
    "malicious_comments": [{"text": "글", "malicious": 1}],
    "3i4k_intent": [{"text": "글", "label": "command"}],
    "kocasm_sarcasm": [{"text": "글 #비꼼", "sarcasm": 1}, {"text": "#비꼼", "sarcasm": 1}],
}


def _write_public(folder: Path, **changed: dict[str, Any]) -> Path:
    for name, rows in PUBLIC.items():
        with gzip.open(folder / f"{name}.jsonl.gz", "wt", encoding="utf-8") as out:
            all_rows = [*rows, changed[name]] if name in changed else rows
            out.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in all_rows)
    return folder


def test_public_rows_become_targets_of_the_helper_heads(tmp_path: Path) -> None:
    targets = [example.targets for example in load_public(_write_public(tmp_path))]
    hate = [{"aux_hate": (degree,)} for degree in (0.0, 0.0, 1.0, 0.0, 1.0, 1.0)]
    feeling = {"aux_feeling": (1.0,) * 44}
    last = [{"aux_intent": INTENTS.index("command")}, {"aux_irony": 1}]
    assert targets == [{"aux_rating": 0}, feeling, feeling, *hate, *last]


@pytest.mark.parametrize(
    ("name", "row", "reason"),
    [
        ("nsmc_rating", {"text": "글", "rating": 0}, "2: rating is 0, expected 1 to 10"),
        ("nsmc_rating", {"text": "글", "rating": 11}, "2: rating is 11"),
        ("nsmc_rating", {"text": "글"}, "2: lacks 'rating'"),
        ("kote", {"text": "글", "labels": [3]}, "2: labels is"),
        ("kocohub_hate", {"text": "글", "hate": "HATE"}, "2: hate is 'HATE', expected one of none"),
        ("kmhas", {"text": "글", "labels": [8]}, "3: labels is .* expected a list of names"),
        ("kmhas", {"text": "글", "labels": ["None"]}, "3: labels holds None, expected some of"),
        ("apeach_hate", {"text": "글", "hate": "yes"}, "2: hate is 'yes', expected 0 to 1"),
        ("3i4k_intent", {"text": "글", "label": 3}, "2: label is 3, expected one of fragment"),
        ("kocasm_sarcasm", {"text": None, "sarcasm": 1}, "3: text is None, expected a text"),
    ],
)
def test_a_public_row_that_cannot_be_used_is_named(
    tmp_path: Path, name: str, row: dict[str, Any], reason: str
) -> None:
    with pytest.raises(PublicDataError, match=rf"{name}\.jsonl\.gz:{reason}"):
        load_public(_write_public(tmp_path, **{name: row}))


def test_all_missing_sets_are_named_before_any_is_read(tmp_path: Path) -> None:
    for name in FILES[2:]:
        (tmp_path / f"{name}.jsonl.gz").touch()
    with pytest.raises(PublicDataError, match=r"lacks nsmc_rating\.jsonl\.gz, kote\.jsonl\.gz;"):
        load_public(tmp_path)
