"""Small batches by graphs: shapes from a short list, and the answers of the run without graphs.

CUDA's capture is stood in for by a computation that reads the same tensors and writes to the same one at
each replay, its attention kernel by plain products.
"""

import random
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.attention import varlen

from tests.checkpoints import SMALL, cpu_engine, random_state
from tests.unit.test_inference_attention import plain_varlen
from worker.inference import graphs, torch_engine
from worker.inference.config import Pooling
from worker.inference.errors import DeviceError
from worker.inference.graphs import Compute, Graphs, filler, longest
from worker.inference.load import load_model
from worker.inference.precision import check_graphs
from worker.inference.tokenising import EncodedText
from worker.inference.torch_engine import TorchEngine

SHAPE = replace(SMALL, hidden_size=64, heads=4, intermediate_size=128, layers=2)


@given(st.lists(st.integers(1, 200), min_size=1, max_size=60), st.sampled_from([200, 300, 512]))
def test_filled_batches_have_few_shapes(lengths: list[int], positions: int) -> None:
    more = filler(lengths, positions)
    if more is None:
        assert sum(lengths) + len(lengths) > graphs.MOST_TOKENS / 2
        return
    filled = [*lengths, *more]
    most = longest(lengths)
    assert most is not None
    assert all(1 <= length <= min(most, positions) for length in filled)
    assert sum(filled) in {32, 64, 128, 256, 512, 1024, 2048}
    assert len(filled).bit_count() == 1
    assert longest(filled) == most


def test_a_text_too_long_has_no_graph() -> None:
    assert filler([600], 1024) is None
    assert filler([512] * 5, 1024) is None


def test_no_filler_is_longer_than_the_encoder_has_positions(monkeypatch: pytest.MonkeyPatch) -> None:
    lengths = [150, 70, 70]
    bound = longest(lengths)
    assert bound is not None
    assert max(filler(lengths, bound) or ()) > 190, "this batch shows nothing"
    assert max(filler(lengths, 190) or ()) <= 190
    shape = replace(SHAPE, positions=190)
    monkeypatch.setattr(varlen, "varlen_attn", plain_varlen)
    monkeypatch.setattr(torch_engine, "attends_by_varlen", lambda *_: True)
    ours = cpu_engine(random_state(shape, std=0.1), shape, graphs=Graphs(Replayed()))
    batch = [EncodedText(np.full(length, 5, dtype=np.int32), False) for length in lengths]
    assert len(ours.infer(batch)["logits_act"]) == len(batch)


class Replayed:
    """Counts captures; a replay computes anew and writes where the first run wrote."""

    def __init__(self) -> None:
        self.captures = 0

    def __call__(self, compute: Compute) -> Compute:
        self.captures += 1
        output = compute()

        def replay() -> torch.Tensor:
            return output.copy_(compute())

        return replay


def engine(pooling: Pooling, made: Graphs | None, monkeypatch: pytest.MonkeyPatch) -> TorchEngine:
    monkeypatch.setattr(varlen, "varlen_attn", plain_varlen)
    monkeypatch.setattr(torch_engine, "attends_by_varlen", lambda *_: True)
    return cpu_engine(random_state(SHAPE, std=0.1), SHAPE, pooling=pooling, graphs=made)


def texts(rng: random.Random, count: int) -> list[EncodedText]:
    return [
        EncodedText(
            np.array([rng.randrange(SHAPE.vocab_size) for _ in range(rng.randint(1, 40))], dtype=np.int32),
            False,
        )
        for _ in range(count)
    ]


@pytest.mark.parametrize("pooling", ["cls", "mean"])
def test_answers_are_those_without_graphs(pooling: Pooling, monkeypatch: pytest.MonkeyPatch) -> None:
    capture = Replayed()
    ours = engine(pooling, Graphs(capture), monkeypatch)
    rng = random.Random(4)
    for _ in range(60):
        batch = texts(rng, rng.choice([1, 1, 2, 3, 7, 20]))
        by_graph, plain = ours.infer(batch), ours.infer(batch, by_graph=False)
        for name, values in plain.items():
            np.testing.assert_allclose(by_graph[name], values, atol=1e-5, err_msg=name)
    assert 0 < capture.captures < 30
    check_graphs(ours, texts(rng, 100))


def test_two_parts_of_one_shape_keep_their_own_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    ours = engine("cls", Graphs(Replayed()), monkeypatch)
    rng = random.Random(5)
    prepared = [ours.prepare([text]) for text in texts(rng, 4)]
    merged = torch_engine.PreparedBatch(
        size=4,
        tokens=sum(one.tokens for one in prepared),
        parts=tuple(replace(one.parts[0], numbers=np.array([number])) for number, one in enumerate(prepared)),
        ready=None,
    )
    together = ours.run(merged)
    for number, one in enumerate(prepared):
        np.testing.assert_allclose(together["logits_act"][number], ours.run(one)["logits_act"][0], atol=1e-6)


def test_shapes_beyond_the_most_run_without_a_graph(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graphs, "MOST_GRAPHS", 1)
    capture = Replayed()
    ours = engine("mean", Graphs(capture), monkeypatch)
    rng = random.Random(6)
    small, large = texts(rng, 1), texts(rng, 30)
    for batch in (small, large, small):
        by_graph, plain = ours.infer(batch), ours.infer(batch, by_graph=False)
        np.testing.assert_allclose(by_graph["logits_act"], plain["logits_act"], atol=1e-5)
    assert capture.captures == 1


def test_a_shape_that_cannot_be_captured_runs_without_a_graph(monkeypatch: pytest.MonkeyPatch) -> None:
    tried = 0

    def failing(compute: Compute) -> Compute:
        nonlocal tried
        tried += 1
        raise RuntimeError("operation not permitted when stream is capturing")

    ours = engine("mean", Graphs(failing), monkeypatch)
    batch = texts(random.Random(8), 2)
    for _ in range(3):
        np.testing.assert_array_equal(ours.infer(batch)["logits_act"], ours.infer(batch)["logits_act"])
    assert tried == 1
    assert ours.captured == 0
    with pytest.raises(DeviceError, match="no graph could be captured"):
        check_graphs(ours, texts(random.Random(9), 100))


def test_a_graph_that_gives_other_answers_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def stale(compute: Compute) -> Compute:
        output = compute()
        return lambda: output

    ours = engine("cls", Graphs(stale), monkeypatch)
    with pytest.raises(DeviceError, match=r"Setting `model.cuda_graphs`: graphs change scores"):
        check_graphs(ours, texts(random.Random(7), 100))


def test_a_cpu_has_no_graphs() -> None:
    with pytest.raises(DeviceError, match=r"Setting `model.cuda_graphs`: it needs a GPU"):
        cpu_engine(random_state(SHAPE), SHAPE, graphs=Graphs(Replayed()))
    with pytest.raises(DeviceError, match=r"Setting `model.cuda_graphs`: it needs a GPU"):
        load_model(device="cpu", cuda_graphs=True)
