"""Outputs equal the plain transformers computation of the same weights: fp32, 1e-4, whatever the batch."""

from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.checkpoints import (
    SMALL,
    cpu_engine,
    dequantised,
    quantised,
    random_state,
    reference_outputs,
    unigram_tokenizer,
    wordpiece_tokenizer,
    write_checkpoint,
)
from worker.inference.config import EncoderShape
from worker.inference.engine import HeadOutputs
from worker.inference.load import load_model
from worker.inference.tokenising import EncodedText
from worker.inference.torch_engine import TorchEngine

TOLERANCE = 1e-4
KLUE_BASE = EncoderShape(
    vocab_size=32_000,
    hidden_size=768,
    layers=12,
    heads=12,
    intermediate_size=3072,
    positions=512,
    token_types=2,
)
TEXTS = [
    "",
    "비",
    "비트코인 가즈아!",
    "to the moon",
    "이더 존버 " * 30,
    "떡상 나락 매수 손절 " * 400,
    "ㅋㅋㅋ 가자",
]


def encoded(sequences: list[list[int]]) -> list[EncodedText]:
    return [EncodedText(np.array(ids, dtype=np.int32), False) for ids in sequences]


def sequences(lengths: list[int], vocabulary: int) -> list[list[int]]:
    drawn = np.random.default_rng(3)
    return [drawn.integers(0, vocabulary, length).tolist() for length in lengths]


def assert_equal(ours: HeadOutputs, theirs: dict[str, torch.Tensor], tolerance: float = TOLERANCE) -> None:
    assert ours.keys() == theirs.keys()
    for name, values in theirs.items():
        np.testing.assert_allclose(ours[name], values.numpy(), atol=tolerance, rtol=0, err_msg=name)


def test_klue_base_size_equals_transformers() -> None:
    state = random_state(KLUE_BASE, std=0.04)
    given_ids = sequences([2, 3, 7, 23, 23, 24, 41, 96, 200], KLUE_BASE.vocab_size)
    theirs = reference_outputs(state, KLUE_BASE, given_ids, batch=len(given_ids))
    assert max(float(values.abs().max()) for values in theirs.values()) > 0.5
    assert_equal(cpu_engine(state, KLUE_BASE).infer(encoded(given_ids)), theirs)


@pytest.mark.parametrize("pooling", ["cls", "mean"])
@pytest.mark.parametrize("activation", ["gelu", "gelu_tanh", "relu", "silu"])
def test_every_length_equals_transformers(
    pooling: Literal["cls", "mean"], activation: Literal["gelu", "gelu_tanh", "relu", "silu"]
) -> None:
    names = {"gelu_tanh": "gelu_new"}
    shape = replace(SMALL, activation=activation)
    state = random_state(shape)
    given_ids = sequences(list(range(1, SMALL.positions + 1, 3)), shape.vocab_size)
    told = replace(shape, activation=names.get(activation, activation))  # type: ignore[arg-type]
    theirs = reference_outputs(state, told, given_ids, pooling=pooling, batch=16)
    assert_equal(cpu_engine(state, shape, pooling=pooling).infer(encoded(given_ids)), theirs)


@pytest.mark.parametrize("heads", [1, 2, 8])
def test_head_width_comes_from_the_config(heads: int) -> None:
    shape = replace(SMALL, heads=heads, layer_norm_eps=1e-5)
    state = random_state(shape)
    given_ids = sequences([1, 5, 40], shape.vocab_size)
    assert_equal(
        cpu_engine(state, shape).infer(encoded(given_ids)), reference_outputs(state, shape, given_ids)
    )


def test_traffic_equals_transformers() -> None:
    state = random_state(SMALL, "traffic")
    given_ids = sequences([2, 9, 64, 256, 256], SMALL.vocab_size)
    theirs = reference_outputs(state, SMALL, given_ids, head_set="traffic", batch=5)
    assert_equal(cpu_engine(state, head_set="traffic").infer(encoded(given_ids)), theirs)


LENGTHS = (1, 2, 3, 7, 8, 9, 16, 17, 30, 64, 65, 128, 200, 256)
ALONE = sequences(list(LENGTHS), SMALL.vocab_size)
Both = tuple[TorchEngine, dict[str, npt.NDArray[np.float32]]]


@pytest.fixture(scope="module", params=["cls", "mean"])
def both(request: pytest.FixtureRequest) -> Both:
    """Our engine, and what transformers says of each sequence alone."""
    state = random_state(SMALL)
    theirs = reference_outputs(state, SMALL, ALONE, pooling=request.param)
    return cpu_engine(state, pooling=request.param), {name: values.numpy() for name, values in theirs.items()}


@settings(max_examples=60, deadline=None)
@given(chosen=st.lists(st.integers(0, len(LENGTHS) - 1), min_size=1, max_size=90))
def test_one_text_has_one_answer_whoever_shares_its_batch(both: Both, chosen: list[int]) -> None:
    ours, alone = both
    outputs = ours.infer(encoded([ALONE[number] for number in chosen]))
    for name, values in alone.items():
        np.testing.assert_allclose(outputs[name], values[chosen], atol=TOLERANCE, rtol=0)


def test_a_batch_of_many_parts(both: Both) -> None:
    ours, alone = both
    chosen = np.random.default_rng(5).integers(0, len(LENGTHS), 4000).tolist()
    prepared = ours.prepare(encoded([ALONE[number] for number in chosen]))
    assert len(prepared.parts) > 1
    outputs = ours.run(prepared)
    for name, values in alone.items():
        np.testing.assert_allclose(outputs[name], values[chosen], atol=TOLERANCE, rtol=0)


def test_an_empty_batch_gives_no_rows() -> None:
    outputs = cpu_engine(random_state(SMALL)).infer([])
    assert {name: values.shape for name, values in outputs.items()} == {
        "logits_senti": (0, 5),
        "logits_act": (0, 6),
        "logits_emo": (0, 7),
        "pred_reg": (0, 3),
    }


@pytest.mark.parametrize("make", [wordpiece_tokenizer, unigram_tokenizer])
def test_texts_equal_transformers_from_the_directory(make: object, tmp_path: Path) -> None:
    """From text to logits: tokeniser and weights both read from disk, by us and by transformers."""
    from transformers import PreTrainedTokenizerFast

    tokenizer = wordpiece_tokenizer() if make is wordpiece_tokenizer else unigram_tokenizer()
    state = random_state(SMALL)
    directory = write_checkpoint(tmp_path / "model", state, tokenizer=tokenizer)
    model = load_model(str(directory), precision="fp32")
    load_theirs: Any = PreTrainedTokenizerFast
    theirs = load_theirs(tokenizer_file=str(directory / "tokenizer.json"))
    ids = theirs(TEXTS, truncation=True, max_length=200)["input_ids"]
    ours = model.tokeniser.encode(TEXTS)
    assert [text.ids.tolist() for text in ours] == ids
    assert [text.truncated for text in ours] == [len(theirs(text)["input_ids"]) > 200 for text in TEXTS]
    assert_equal(model.engine.infer(ours), reference_outputs(state, SMALL, ids))


def test_int8_storage_equals_its_written_out_weights(tmp_path: Path) -> None:
    stored = quantised(random_state(SMALL))
    model = load_model(str(write_checkpoint(tmp_path, stored)), precision="fp32")
    ours = model.tokeniser.encode(TEXTS)
    theirs = reference_outputs(dequantised(stored), SMALL, [text.ids.tolist() for text in ours])
    assert_equal(model.engine.infer(ours), theirs)


@pytest.mark.skipif(
    not torch.ops.mkldnn._is_mkldnn_bf16_supported(), reason="bf16 on a CPU without AVX-512 is emulated"
)
def test_bf16_keeps_the_answers() -> None:
    shape = replace(SMALL, hidden_size=128, heads=2, intermediate_size=512, layers=12)
    state = random_state(shape, std=0.06)
    drawn = np.random.default_rng(11)
    texts = encoded(sequences(drawn.integers(3, 60, 1500).tolist(), shape.vocab_size))
    exact = cpu_engine(state, shape).infer(texts)
    coarse = cpu_engine(state, shape, dtype=torch.bfloat16).infer(texts)
    for name in ("logits_senti", "logits_act"):
        assert len(np.unique(exact[name].argmax(1))) > 1
        assert (exact[name].argmax(1) == coarse[name].argmax(1)).mean() >= 0.97
