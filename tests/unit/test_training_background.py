"""Everyday texts teach that they have nothing to do with the market, and nothing that is not sure."""

import gzip
import json
import math
from pathlib import Path
from typing import Any

import pytest

from worker.training.background import RELEVANCE, load_background
from worker.training.examples import Example
from worker.training.public import PublicDataError

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
