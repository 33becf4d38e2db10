"""`kbert bench engine` measures what it says."""

import itertools

import pytest

from tests.checkpoints import SMALL
from worker.benchmarks import engine as bench
from worker.benchmarks.null_engine import NullEngine
from worker.inference.config import EncoderShape


def test_report(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "BERT_BASE", SMALL)
    monkeypatch.setattr(bench, "_PRODUCT", {"cpu": 64})
    monkeypatch.setattr(bench, "_bundled", lambda *_: None)
    told: list[str] = []
    found = bench.bench_engine(messages=40, repeats=2, threads=1, precision="fp32", report=told.append)
    assert found["precision"] == "float32"
    assert set(found["peers"]) == {
        f"transformers {precision}, {order}, batch 32 padded"
        for precision, order in itertools.product(
            ("fp32", "bf16"), ("arrival order", "sorted in windows of 256")
        )
    }
    for name, rate in found["peers"].items():
        assert found["ratios"][name] == pytest.approx(found["ours"] / rate, rel=0.02)
    assert found["ours_tokens_per_s"] > found["ours"] > 0
    assert found["matrix_gflops"] > 0
    assert sum("ours" in line for line in told) == 2


def test_chat_lengths() -> None:
    lengths = [len(text) for text in bench.chat_texts(4000, 32_000)]
    assert min(lengths) == 4
    assert 60 < max(lengths) <= 128
    assert 22 <= sum(lengths) / len(lengths) <= 24
    same = bench.chat_texts(4000, 32_000)
    assert [len(text) for text in same] == lengths


def test_useful_operations_by_hand() -> None:
    shape = EncoderShape(
        vocab_size=9, hidden_size=2, layers=2, heads=1, intermediate_size=3, positions=8, token_types=1
    )
    linear = 2 * (4 * 2 * 2 + 2 * 2 * 3)
    first_layer = 5 * linear + 4 * 2 * (3 * 3 + 2 * 2)
    # Keys and values of five tokens; all else of two first tokens, which look at five.
    last_layer = 5 * 2 * 2 * 2 * 2 + 2 * (linear - 2 * 2 * 2 * 2) + 4 * 2 * 5
    assert bench.useful_operations(shape, [3, 2]) == first_layer + last_layer


def test_the_null_engine_answers_in_shape() -> None:
    texts = bench.chat_texts(3, 100)
    assert {name: values.shape for name, values in NullEngine().infer(texts).items()} == {
        "logits_senti": (3, 5),
        "logits_act": (3, 6),
        "logits_emo": (3, 7),
        "pred_reg": (3, 3),
    }
    assert NullEngine("traffic").infer([])["logits"].shape == (0, 2)
