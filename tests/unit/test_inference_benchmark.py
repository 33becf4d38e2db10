"""`kbert bench engine` measures what it says."""

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.checkpoints import SMALL
from worker.benchmarks import engine as bench
from worker.benchmarks import exported_peers
from worker.benchmarks.null_engine import NullEngine
from worker.benchmarks.transformers_peer import TransformersPeer, padded
from worker.inference.config import EncoderShape

PLAIN = {
    f"transformers {precision}, {order}, batch 32 padded"
    for precision, order in itertools.product(("fp32", "bf16"), ("arrival order", "sorted in windows of 256"))
}
EXPORTED = {
    f"{name}, sorted in windows of 256, batch 32 padded"
    for name in ("ONNX Runtime fp32", "ONNX Runtime dynamic int8", "OpenVINO fp32", "OpenVINO bf16")
}


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "BERT_BASE", SMALL)
    monkeypatch.setattr(bench, "_PRODUCT", {"cpu": 64})
    monkeypatch.setattr(bench, "_bundled", lambda *_: None)


@pytest.mark.usefixtures("small")
def test_report(tmp_path: Path) -> None:
    told: list[str] = []
    plot = tmp_path / "results" / "engine.png"
    found = bench.bench_engine(messages=40, repeats=2, threads=1, plot=plot, report=told.append)
    assert found["precision"] in found["ours_by_precision"]
    assert set(found["matrix_gflops_by_precision"]) == set(found["ours_by_precision"])
    assert found["matrix_gflops"] == found["matrix_gflops_by_precision"][found["precision"]] > 0
    # Each peer ran, or it is said why not.
    assert set(found["peers"]) | set(found["peers_absent"]) == PLAIN | EXPORTED
    assert not set(found["peers"]) & set(found["peers_absent"])
    for kind in (found, found["news"]):
        assert kind["ours"] == max(kind["ours_by_precision"].values()) or kind is found["news"]
        for name, rate in kind["peers"].items():
            assert kind["ratios"][name] == pytest.approx(kind["ours"] / rate, rel=0.02)
        assert kind["ours_tokens_per_s"] > kind["ours"] > 0
    assert found["news"]["lengths"]["mean"] > 2 * found["lengths"]["mean"]
    assert sum("ours" in line for line in told) == 2 * len(found["ours_by_precision"])
    assert plot.read_bytes().startswith(b"\x89PNG")


@pytest.mark.usefixtures("small")
def test_a_peer_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exported_peers, "find_spec", lambda name: None if name == "openvino" else True)
    absent = exported_peers.absent_peers()
    assert set(absent) == {name for name in EXPORTED if "OpenVINO" in name}
    assert set(absent.values()) == {"not installed: openvino; pip install 'kbert-stream[bench]'"}


def test_exported_peers_compute_the_same() -> None:
    """A peer that computed less, or something else, would be no peer."""
    pytest.importorskip("onnxruntime")
    pytest.importorskip("openvino")
    state = bench.random_state(SMALL)
    texts = bench.chat_texts(5, SMALL.vocab_size)
    peer = TransformersPeer(state, SMALL, torch.float32, torch.device("cpu"))
    ids, mask = padded(texts)
    with torch.inference_mode():
        theirs = peer.module(ids, mask).numpy()
    ours = bench.base_engine(state, SMALL, "fp32", torch.device("cpu"), 1).infer(texts)
    np.testing.assert_allclose(np.concatenate(list(ours.values()), axis=1), theirs, atol=1e-4)
    inputs = {"ids": ids.numpy(), "mask": mask.numpy()}
    for name, session in exported_peers.sessions(peer, 1).items():
        np.testing.assert_allclose(
            session(inputs), theirs, atol=1e-4 if "fp32" in name else 0.2, err_msg=name
        )


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
