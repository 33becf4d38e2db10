"""Reduced precision keeps the bundled model's answers over Korean text, and `auto` takes no other."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.checkpoints import SMALL, cpu_engine, random_state
from worker.inference import devices, precision, torch_engine
from worker.inference.config import EncoderShape
from worker.inference.engine import HeadOutputs
from worker.inference.errors import DeviceError, EngineOutOfMemory
from worker.inference.fp8 import Fp8Kernels
from worker.inference.int8 import int8_runs
from worker.inference.kernels import Kernels
from worker.inference.load import load_model
from worker.inference.precision import (
    MOST_CHANGE,
    SAME_LABELS,
    Agreement,
    compare,
    engine_of,
    sample_texts,
)
from worker.inference.tokenising import EncodedText
from worker.inference.torch_engine import TorchEngine
from worker.training import datasets
from worker.training.datasets import PACKAGED, load_all

CPU = torch.device("cpu")
DATA = Path(datasets.__file__).parent / "data"
SHAPE = replace(SMALL, hidden_size=64, heads=4, intermediate_size=256, layers=2)
needs_int8 = pytest.mark.skipif(not int8_runs(), reason="this CPU multiplies no bytes")
needs_bf16 = pytest.mark.skipif(
    not torch.ops.mkldnn._is_mkldnn_bf16_supported(), reason="bf16 on this CPU is emulated"
)
Outputs = Callable[[str], HeadOutputs]


@pytest.fixture(scope="module")
def outputs() -> Outputs:
    """Of the bundled crypto model over real comments and headlines, lines that it never learned from, and
    every sixth packaged text; no precision is calibrated on any of them."""
    rows = [*load_all([DATA / "real_ko.jsonl.gz", DATA / "talk_check_ko.jsonl.gz"]), *load_all(PACKAGED)[::6]]

    def of(asked: str) -> HeadOutputs:
        model = load_model(precision=asked, threads=1)
        return model.engine.infer(model.tokeniser.encode([row.text for row in rows]))

    return of


@pytest.fixture(scope="module")
def exact(outputs: Outputs) -> HeadOutputs:
    return outputs("fp32")


@pytest.mark.parametrize(
    ("asked", "least"),
    [
        pytest.param("bf16", SAME_LABELS, marks=needs_bf16),
        pytest.param("int8", 0.98, marks=needs_int8),
        pytest.param("auto", SAME_LABELS, marks=needs_int8),
    ],
)
def test_the_bundled_model_keeps_its_answers(
    asked: str, least: float, exact: HeadOutputs, outputs: Outputs, monkeypatch: pytest.MonkeyPatch
) -> None:
    # So that a busy machine does not make `auto` take fp32, which would prove nothing.
    monkeypatch.setattr(precision, "layer_speeds", lambda *_: {"fp32": 100.0, "int8": 240.0})
    found = compare(exact, outputs(asked))
    assert found.same_labels >= least, found
    assert found.change < MOST_CHANGE, found
    assert found.change > 0, "it was computed in fp32"


@needs_int8
def test_the_bundled_traffic_model_keeps_its_answers_in_int8() -> None:
    found = {}
    for asked in ("fp32", "int8"):
        model = load_model(head_set="traffic", precision=asked, threads=1)
        articles = sample_texts("traffic", model.tokeniser.separator)[:150]
        found[asked] = model.engine.infer(model.tokeniser.encode(articles))
    agreement = compare(found["fp32"], found["int8"])
    assert agreement.same_labels >= SAME_LABELS, agreement
    assert 0 < agreement.change < MOST_CHANGE, agreement


def texts_of(lengths: list[int], shape: EncoderShape = SHAPE) -> list[EncodedText]:
    drawn = np.random.default_rng(7)
    return [
        EncodedText(drawn.integers(0, shape.vocab_size, length).astype(np.int32), False) for length in lengths
    ]


def toy(
    asked: str, state: dict[str, torch.Tensor], shape: EncoderShape = SHAPE, threads: int = 1
) -> TorchEngine:
    def make(dtype: torch.dtype, kernels: Kernels | None) -> TorchEngine:
        return cpu_engine(state, shape, dtype=dtype, threads=threads, kernels=kernels)

    samples = texts_of([5, 9, 30, 3] * 40, shape)
    return engine_of(asked, make, lambda: samples, state, shape, device=CPU, threads=threads)


@needs_int8
@pytest.mark.parametrize("activation", ["gelu", "gelu_tanh", "relu", "silu"])
def test_int8_is_near_fp32_with_every_activation(activation: str) -> None:
    shape = replace(SHAPE, activation=activation)  # type: ignore[arg-type]
    state = random_state(shape, std=0.1)
    texts = texts_of([1, 2, 17, 40, 64] * 8)
    left, right = toy("fp32", state, shape).infer(texts), toy("int8", state, shape).infer(texts)
    for name, values in left.items():
        spread = values.std()
        assert np.abs(values - right[name]).mean() < 0.1 * spread, name


def cores_of(engine: TorchEngine, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Gets the number of cores of each part that the engine computes from now on."""
    compute, cores = engine._computed, []

    def seen(*given: object) -> torch.Tensor:
        cores.append(torch.get_num_threads())
        return compute(*given)  # type: ignore[arg-type]

    monkeypatch.setattr(engine, "_computed", seen)
    return cores


@needs_int8
def test_int8_shares_a_batch_between_cores_only_where_that_pays(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = toy("int8", random_state(SHAPE, std=0.1), threads=3)
    cores = cores_of(engine, monkeypatch)
    monkeypatch.setattr(torch_engine, "_TOGETHER_TOKENS", 60)
    for lengths, expected in (([5, 9], [1]), ([64], [3]), ([64] * 9, [1, 1, 1]), ([5], [1])):
        cores.clear()
        engine.infer(texts_of(lengths))
        assert cores == expected, lengths


def test_floats_share_a_batch_between_cores_from_so_much_work_on(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = toy("fp32", random_state(SHAPE, std=0.1), threads=3)
    cores = cores_of(engine, monkeypatch)
    monkeypatch.setattr(torch_engine, "_TOGETHER_PRODUCT", 30 * SHAPE.hidden_size**2)
    for lengths, expected in (([5, 9], [1]), ([30], [3]), ([5], [1]), ([64] * 9, [3])):
        cores.clear()
        engine.infer(texts_of(lengths))
        assert cores == expected, lengths


@needs_int8
def test_int8_in_lanes_gives_the_answers_of_one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    state = random_state(SHAPE, std=0.1)
    alone, laned = toy("int8", state), toy("int8", state, threads=3)
    texts = texts_of([1, 64, 17, 40, 5, 9] * 20)
    prepared = laned.prepare(texts)
    assert len(prepared.parts) == 3
    assert laned.filler(prepared).rows < prepared.tokens / 4
    assert len(laned.prepare(texts[:2]).parts) == 1, "a small batch is computed together"
    expected = alone.infer(texts)
    for name, values in laned.run(prepared).items():
        np.testing.assert_allclose(values, expected[name], atol=0.1, err_msg=name)

    def broken(*_: object) -> None:
        raise MemoryError("not enough memory")

    monkeypatch.setattr(laned, "_computed", broken)
    with pytest.raises(EngineOutOfMemory):
        laned.infer(texts)


@needs_int8
def test_an_answer_in_int8_does_not_depend_on_who_shares_the_batch() -> None:
    engine = toy("int8", random_state(SHAPE, std=0.1))
    texts = texts_of([1, 3, 9, 33, 64, 12])
    together = engine.infer(texts)
    for number, text in enumerate(texts):
        for name, values in engine.infer([text]).items():
            # A product that rounds the other way in bf16 moves a byte by one step.
            np.testing.assert_allclose(values[0], together[name][number], atol=0.1, err_msg=name)


def test_fp8_is_near_fp32_and_needs_no_company() -> None:
    """On a CPU, by the operator that a GPU has as well; the setting itself asks for a GPU."""
    state = random_state(SHAPE, std=0.1)
    plain = toy("fp32", state)
    kernels = Fp8Kernels(SHAPE.activation, torch.bfloat16, CPU)
    coarse = cpu_engine(state, SHAPE, dtype=torch.bfloat16, kernels=kernels)
    assert coarse.precision == "fp8"
    texts = texts_of([1, 2, 17, 40, 64] * 8)
    left, right = plain.infer(texts), coarse.infer(texts)
    for name, values in left.items():
        assert 0 < np.abs(values - right[name]).mean() < 0.2 * values.std(), name
        alone = np.concatenate([coarse.infer([text])[name] for text in texts[:10]])
        # As in int8: another order of sums in bf16 moves a number by one step.
        np.testing.assert_allclose(alone, right[name][:10], atol=0.1, err_msg=name)


def test_fp8_of_the_bundled_model(
    exact: HeadOutputs, outputs: Outputs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(devices, "multiplies_fp8", lambda _: True)
    found = compare(exact, outputs("fp8"))
    assert found.same_labels > 0.9, found
    assert 0 < found.change < 0.05, found


def test_fp8_without_the_hardware() -> None:
    with pytest.raises(DeviceError, match=r"Setting `model.precision`: fp8 needs a GPU"):
        toy("fp8", random_state(SHAPE))


class TestAuto:
    @pytest.fixture
    def state(self) -> dict[str, torch.Tensor]:
        return random_state(SHAPE, std=0.02)

    @pytest.mark.parametrize(
        ("speeds", "chosen"),
        [
            ({"fp32": 100.0}, "float32"),
            ({"fp32": 100.0, "bf16": 105.0}, "float32"),
            ({"fp32": 100.0, "bf16": 200.0}, "bfloat16"),
            ({"fp32": 100.0, "bf16": 200.0, "int8": 210.0}, "bfloat16"),
            ({"fp32": 100.0, "bf16": 90.0, "int8": 105.0}, "float32"),
        ],
    )
    def test_takes_the_fastest_by_a_margin(
        self,
        speeds: dict[str, float],
        chosen: str,
        state: dict[str, torch.Tensor],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr(precision, "layer_speeds", lambda *_: speeds)
        assert toy("auto", state).precision == chosen

    @needs_int8
    @pytest.mark.parametrize(("needed", "chosen"), [(0.0, "int8"), (1.01, "float32")])
    def test_takes_int8_only_where_the_answers_hold(
        self, needed: float, chosen: str, state: dict[str, torch.Tensor], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(precision, "layer_speeds", lambda *_: {"fp32": 100.0, "int8": 300.0})
        monkeypatch.setattr(precision, "SAME_LABELS", needed)
        engine = toy("auto", state)
        assert engine.precision == chosen
        assert "tokens/s of one layer: fp32 100, int8 300; int8 keeps" in engine.description

    @needs_int8
    def test_leaves_feed_forwards_in_floats_until_the_answers_hold(
        self, state: dict[str, torch.Tensor], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(precision, "layer_speeds", lambda *_: {"fp32": 100.0, "int8": 300.0})
        found = iter([Agreement(0.98, 0.001), Agreement(0.995, 0.001)])
        monkeypatch.setattr(precision, "compare", lambda *_: next(found))
        engine = toy("auto", state)
        assert engine.precision == "int8"
        assert "int8 keeps 98.0%" in engine.description
        assert "int8, the feed-forward of layers 0 apart, keeps 99.5%" in engine.description
        kinds = [type(layer.feed_forward).__name__ for layer in engine._encoder._layers]
        assert kinds == ["FeedForward", "Int8FeedForward"]

    @needs_int8
    def test_leaves_no_more_than_pays(
        self, state: dict[str, torch.Tensor], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(precision, "layer_speeds", lambda *_: {"fp32": 100.0, "int8": 115.0})
        monkeypatch.setattr(precision, "SAME_LABELS", 1.01)
        engine = toy("auto", state)
        assert engine.precision == "float32"
        assert "apart" not in engine.description

    def test_times_every_precision_that_the_processor_has(self, state: dict[str, torch.Tensor]) -> None:
        speeds = precision.layer_speeds(state, SHAPE, 1)
        assert min(speeds.values()) > 0
        assert ("int8" in speeds) == int8_runs()
        assert "fp32" in speeds


def test_int8_without_the_instructions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "int8_runs", lambda: False)
    with pytest.raises(DeviceError, match=r"Setting `model.precision`: int8 needs an x86 CPU with VNNI"):
        toy("int8", random_state(SHAPE))


def test_agreement_by_hand() -> None:
    left = {"logits_senti": np.array([[0.0, 1.0], [1.0, 0.0]]), "pred_reg": np.array([[0.2], [2.0]])}
    right = {"logits_senti": np.array([[0.0, 1.0], [0.0, 1.0]]), "pred_reg": np.array([[0.4], [1.0]])}
    found = compare(left, right)
    assert found.same_labels == 0.5
    share = 1 / (1 + np.exp(-1.0))
    assert found.change == pytest.approx((2 * (2 * share - 1) + 0.2) / 6)
    assert not found.holds


def test_samples_of_both_pipelines() -> None:
    assert len(sample_texts("crypto", "[SEP]")) > 300
    articles = sample_texts("traffic", "[SEP]")
    assert len(articles) > 50
    assert all(" [SEP] " in article for article in articles)
