import csv
import itertools
import json
import random
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file
from tokenizers import Tokenizer

from schemas.labels import ACTIONS, SENTIMENTS
from tests.unit.training_toys import row, toy_rows, write_base, write_jsonl
from worker.errors import ConfigurationError
from worker.inference.config import parse_kbert
from worker.inference.load import load_model
from worker.training.crypto import CryptoTrainConfig, train
from worker.training.datasets import EXTRA, load_all
from worker.training.evaluate import report
from worker.training.export import dequantise, loaded_tensors, quantise
from worker.training.heads import CRYPTO_HEADS, HeadSpec
from worker.training.lexical import LexicalTeacher
from worker.training.losses import head_loss, soft_target
from worker.training.mixture import Mixture, Round, settled
from worker.training.model import MultiHeadModel, finished, grow_embeddings, load_encoder
from worker.training.objective import HeadsObjective
from worker.training.parts import Parts, add_extra, divide
from worker.training.predictions import Predictions, Truth, predict_logits
from worker.training.provenance import StateMismatchError
from worker.training.spelling import Speller
from worker.training.trainer import Reader, Stage, StageConfig
from worker.training.vocabulary import extend_tokenizer, missing_characters


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Any:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_base(tmp_path_factory.mktemp("base"))


def config(base: Path, folder: Path, **changes: Any) -> CryptoTrainConfig:
    data = write_jsonl(toy_rows(240), folder / "toy.jsonl")
    start = CryptoTrainConfig(base=base, out=folder / "run", data=(data,), max_length=32)
    toy_round = Round(epochs=10, batch=16, rate=2e-3, splices=0, augmented=0.2, spelled=0.1)
    return replace(start, extra=(), rounds=(toy_round, replace(toy_round, epochs=1)), **changes)


def losses(folder: Path) -> list[float]:
    with (folder / "crypto.csv").open(encoding="utf-8") as file:
        return [float(row["loss"]) for row in csv.DictReader(file)]


def test_training_learns_and_writes_a_checkpoint(base: Path, tmp_path: Path) -> None:
    settings = config(base, tmp_path)
    folder = train(settings)
    curve = losses(settings.out)
    assert curve[-1] < 0.6 * curve[0]
    assert (settings.out / "crypto.png").stat().st_size > 1000
    kbert = json.loads((folder / "config.json").read_text(encoding="utf-8"))["kbert"]
    assert kbert["head_set"] == "crypto"
    assert len(kbert["emo_threshold"]) == 7
    assert len({file.stat().st_mode for file in folder.iterdir()}) == 1
    tensors = load_file(folder / "model.safetensors")
    assert tensors["bert.embeddings.word_embeddings.weight"].dtype == torch.int8
    assert tensors["bert.embeddings.word_embeddings.weight.scale"].dtype == torch.float16
    assert {f"{head.name}.weight" for head in CRYPTO_HEADS} <= set(tensors)
    assert not any("aux" in name for name in tensors)

    # The stored model, read back, answers lines that it never saw.
    model = MultiHeadModel(load_encoder(base, 8, 0.0, 32), CRYPTO_HEADS, "mean", 0.0)
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    grow_embeddings(model.bert, Tokenizer.from_file(str(base / "tokenizer.json")), tokenizer)
    model.load_state_dict(loaded_tensors(tensors))
    fresh = toy_rows(60, seed=9)
    texts = [row.text for row in fresh]
    logits = predict_logits(model, tokenizer, texts, prefix="query: ", max_length=32, pad_id=1)
    said = Predictions.of_logits(logits, np.full(7, 0.5))
    result = report("toy", "all", fresh, said, parse_kbert(kbert, folder), baseline_rows=toy_rows(90))
    assert result.action.macro_f1 > 0.75  # a guess gets a third
    assert result.baseline is not None
    assert json.loads(json.dumps(result.to_dict()))["texts"] == 60
    assert "action_signal: macro-F1" in result.text()


def toy_stage(base: Path, folder: Path, **changes: Any) -> tuple[Stage, Reader]:
    tokenizer = Tokenizer.from_file(str(base / "tokenizer.json"))
    torch.manual_seed(4)
    encoder = load_encoder(base, 2, 0.1, 32)
    model = MultiHeadModel(encoder, CRYPTO_HEADS, "mean", 0.1)
    settings = StageConfig("crypto", epochs=2, batch_size=8, learning_rate=1e-3, average=0.9)
    folder.mkdir(exist_ok=True)
    stage = Stage(
        model, HeadsObjective(CRYPTO_HEADS), replace(settings, **changes), folder, Console(quiet=True)
    )
    return stage, Reader(tokenizer, "", 32, 1)


@pytest.mark.parametrize("broken_at", [3, 12, 17])
def test_an_interrupted_run_ends_as_an_unbroken_one(base: Path, tmp_path: Path, broken_at: int) -> None:
    examples = [row.example() for row in toy_rows(80)]

    def epoch_of(_epoch: int, rng: Any) -> Any:
        return rng.sample(examples, 72)

    whole, read = toy_stage(base, tmp_path / "whole", accumulate=1)
    expected = whole.run(epoch_of, read).state_dict()
    first, read = toy_stage(base, tmp_path / "broken")
    first.run(epoch_of, read, stop_after=broken_at)
    second, read = toy_stage(base, tmp_path / "broken")
    assert second.resume()
    assert second.step == broken_at
    for name, value in second.run(epoch_of, read).state_dict().items():
        torch.testing.assert_close(value, expected[name], rtol=0, atol=0, msg=name)


def test_a_state_of_other_settings_is_refused(base: Path, tmp_path: Path) -> None:
    stage, read = toy_stage(base, tmp_path)
    stage.run(lambda _e, _r: [row.example() for row in toy_rows(16)], read, stop_after=1)
    other, _ = toy_stage(base, tmp_path, learning_rate=2e-3)
    with pytest.raises(StateMismatchError, match="other settings"):
        other.resume()


def test_training_stops_when_validation_no_longer_rises(base: Path, tmp_path: Path) -> None:
    stage, read = toy_stage(base, tmp_path, epochs=9, patience=2)
    marks = iter([0.5, 0.7, 0.6, 0.6, 0.9])
    stage.run(lambda _e, _r: [row.example() for row in toy_rows(16)], read, lambda _m: {"mean": next(marks)})
    assert stage.step == 4 * 2
    assert stage.best is not None
    assert stage.best[0] == 0.7
    again, read = toy_stage(base, tmp_path, epochs=9, patience=2)
    assert again.resume()
    again.run(lambda _e, _r: [row.example() for row in toy_rows(16)], read, lambda _m: {"mean": 0.0})
    assert again.step == 4 * 2


def test_an_element_is_off_by_at_most_half_a_step() -> None:
    generator = torch.Generator().manual_seed(1)
    matrix = torch.randn(200, 50, generator=generator) * torch.logspace(-2, 1, 200)[:, None]
    matrix[7] = 0.0
    steps, scale = quantise(matrix)
    error = (dequantise(steps, scale) - matrix).abs()
    assert steps.dtype == torch.int8
    assert bool((error <= 0.5001 * scale.float()[:, None]).all())
    assert bool((dequantise(steps, scale)[7] == 0).all())


def test_smoothing_goes_to_neighbours_on_a_scale_and_to_all_elsewhere() -> None:
    scale, classes = HeadSpec("scale", 5, "ordinal"), HeadSpec("classes", 4, "class")
    assert soft_target(scale, 0, 0.1) == pytest.approx((0.9, 0.1, 0, 0, 0))
    assert soft_target(scale, 2, 0.1) == pytest.approx((0, 0.05, 0.9, 0.05, 0))
    assert soft_target(classes, 1, 0.2) == pytest.approx((0.025, 0.925, 0.025, 0.025))


def test_an_unknown_score_teaches_nothing() -> None:
    head = HeadSpec("head_reg", 3, "score")
    logits = torch.full((2, 3), 0.5, requires_grad=True)
    targets = torch.tensor([[0.1, float("nan"), 0.9], [0.5, float("nan"), 0.5]])
    torch.autograd.backward(head_loss(head, logits, targets, {}))
    assert logits.grad is not None
    assert bool((logits.grad[:, 1] == 0).all())
    assert bool((logits.grad[0, [0, 2]] != 0).all())


def test_new_characters_get_pieces_and_old_texts_keep_theirs(base: Path) -> None:
    old = Tokenizer.from_file(str(base / "tokenizer.json"))
    assert missing_characters(old, ["오늘 ㅃㅃ 쯧", "쯧 쯧"], 2) == ["쯧", "ᄈ"]
    new = extend_tokenizer(old, ["쯧", "ᄈ"])
    assert new.encode("오늘 비트 간다").ids == old.encode("오늘 비트 간다").ids
    assert 3 in old.encode("쯧").ids
    assert 3 not in new.encode("쯧").ids
    encoder = load_encoder(base, 2, 0.0, 32)
    before = encoder.embeddings.word_embeddings.weight.detach().clone()
    grow_embeddings(encoder, old, new)
    after = encoder.embeddings.word_embeddings.weight.detach()
    assert len(after) == len(before) + 2
    torch.testing.assert_close(after[: len(before)], before)
    # Some published tables have rows beyond the vocabulary: new pieces must not fall on those.
    padded = load_encoder(base, 2, 0.0, 32)
    padded.embeddings.word_embeddings = torch.nn.Embedding(
        len(before) + 5, 32, _weight=torch.cat([before, torch.full((5, 32), 9.0)])
    )
    grow_embeddings(padded, old, new)
    torch.testing.assert_close(padded.embeddings.word_embeddings.weight.detach(), after)


def test_truth_and_signals_line_up() -> None:
    rows = toy_rows(6)
    truth = Truth.of(rows)
    assert truth.action.tolist() == [0, 3, 5, 0, 3, 5]
    signal = {
        "scores": {
            "sentiment_strength": dict.fromkeys(
                ("strong_neg", "weak_neg", "neutral", "weak_pos", "strong_pos"), 0.1
            )
            | {"strong_neg": 0.6},
            "action_signal": dict.fromkeys(("ask_info", "info_only", "avoid", "sell", "hold", "buy"), 0.1)
            | {"avoid": 0.5},
            "emotions": dict.fromkeys(
                ("sarcasm", "hope", "anger", "doubt", "confidence", "fear", "greed"), 0.2
            ),
        },
        "emotions": ["fear"],
        "certainty": 0.8,
        "relevance": 0.9,
        "toxicity": 0.0,
    }
    said = Predictions.of_signals([signal])
    assert (said.sentiment.argmax(1)[0], said.action.argmax(1)[0]) == (4, 3)
    assert said.named[0].tolist() == [False, True, False, False, False, False, False]


def test_extra_texts_are_learned_unless_a_held_back_text_is_close() -> None:
    rows = toy_rows(6)
    parts = Parts(rows[:2], rows[2:4], rows[4:])
    near = rows[4].model_copy(update={"text": rows[4].text + "!!"})
    other = row("완전히 다른 이야기입니다", "buy", "weak_pos")
    assert add_extra(parts, [near, other]) == Parts([*rows[:2], other], rows[2:4], rows[4:])
    away = other.model_copy(update={"file": "away"})
    assert add_extra(parts, [near, away], ["away"]) == Parts(rows[:2], rows[2:4], [*rows[4:], away])


def test_a_register_left_out_is_the_test_part() -> None:
    rows = toy_rows(60)
    rows = [r.model_copy(update={"file": "a" if i % 2 else "b"}) for i, r in enumerate(rows)]
    parts = divide(rows, ["a"])
    assert parts.test == [r for r in rows if r.file == "a"]
    assert {r.file for r in (*parts.train, *parts.validation)} == {"b"}
    judged = {r.text for r in divide(rows).test}
    assert parts.train
    assert judged.isdisjoint(r.text for r in (*parts.train, *parts.validation))


def test_what_is_close_to_a_register_left_out_is_not_learned() -> None:
    rows = [r.model_copy(update={"file": "b"}) for r in toy_rows(60)]
    learned = divide(rows).train[0]
    close = learned.model_copy(update={"text": f"{learned.text}!!", "file": "a"})
    parts = divide([*rows, close], ["a"])
    assert parts.test == [close]
    assert learned not in (*parts.train, *parts.validation)
    whole = divide(rows)
    later = add_extra(whole, [close], ["a"])
    assert later.test == [*whole.test, close]
    assert learned in whole.train
    assert learned not in later.train


def test_a_finished_epoch_is_not_made_again(base: Path, tmp_path: Path) -> None:
    examples = [row.example() for row in toy_rows(24)]
    first, read = toy_stage(base, tmp_path)
    first.run(lambda _e, _r: examples, read, stop_after=4)
    again, read = toy_stage(base, tmp_path)
    assert again.resume()
    made: list[int] = []

    def epoch_of(epoch: int, _rng: Any) -> Any:
        made.append(epoch)
        return examples

    again.run(epoch_of, read)
    assert made == [1]
    weights = again.model.state_dict()
    # What is left of a finished stage is its result.
    assert again.state_file.stat().st_size < 1.5 * sum(4 * value.numel() for value in weights.values())
    last, read = toy_stage(base, tmp_path)
    assert last.resume()
    assert last.run(epoch_of, read).state_dict().keys() == weights.keys()
    assert made == [1]
    torch.testing.assert_close(last.model.state_dict(), weights, rtol=0, atol=0)


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), RuntimeError("write failed")])
def test_a_full_disk_is_one_sentence(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    stage, _ = toy_stage(base, tmp_path)

    def full(_content: object, path: Path) -> None:
        path.write_bytes(b"half")
        raise error

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(ConfigurationError, match=r"--out .*: cannot be written \(.*\): free space"):
        stage.save()
    assert not list(tmp_path.iterdir())


def test_an_out_that_is_a_file_is_one_sentence(base: Path, tmp_path: Path) -> None:
    settings = config(base, tmp_path)
    settings.out.touch()
    with pytest.raises(ConfigurationError, match=r"--out .*run: cannot be written"):
        train(settings)


def test_splices_carry_the_opinion_of_the_baseline() -> None:
    labels = itertools.cycle(itertools.product(ACTIONS, SENTIMENTS))
    rows = [
        row(f"{text.text} {action} {sentiment}", action, sentiment)
        for text, (action, sentiment) in zip(toy_rows(120), labels, strict=False)
    ]
    made = LexicalTeacher(rows).examples(40, 0.25, random.Random(1))
    assert made == LexicalTeacher(rows).examples(40, 0.25, random.Random(1))
    assert len({example.text for example in made}) > 35
    for example in made:
        sentiment, action = example.targets["head_senti"], example.targets["head_act"]
        assert isinstance(sentiment, tuple)
        assert isinstance(action, tuple)
        assert sum(sentiment) == pytest.approx(1)
        assert len(action) == len(ACTIONS)


def test_own_texts_come_as_often_as_asked() -> None:
    own, extra = toy_rows(6), toy_rows(9, seed=2)
    mixture = Mixture([*own, *extra], own, None, None, [], [], 0.1)
    part = Round(epochs=1, batch=4, rate=1e-4, augmented=0.0, repeats=3)
    texts = Counter(example.text for example in mixture.epoch(part, 1, random.Random(1)))
    assert {texts[row.text] for row in own} == {3}
    assert {texts[row.text] for row in extra} == {1}


def test_the_lines_of_the_guide_come_as_often_as_those_that_are_judged_on() -> None:
    judged, others = toy_rows(6), toy_rows(9, seed=2)
    guide = [row.model_copy(update={"file": "guide"}) for row in others[:2]]
    assert settled([*judged[:4], *guide, *others[2:]], judged) == [*judged[:4], *guide]
    packaged = {row.text for row in load_all(EXTRA) if row.file == "guide"}
    assert {"여기선 관망이 맞다", "들어가도 될까?", "업데이트 공지 나왔습니다", "개떡상이여"} <= packaged


def test_spelled_pieces_read_as_before(base: Path) -> None:
    tokenizer = Tokenizer.from_file(str(base / "tokenizer.json"))
    ids = tokenizer.encode("오늘 비트 간다").ids
    spelled = Speller(tokenizer).spell(ids, 1.0, random.Random(1))
    assert len(spelled) > len(ids)
    one, two = ("".join(tokenizer.id_to_token(i) or "?" for i in row) for row in (spelled, ids))
    assert one == two
    assert Speller(tokenizer).spell(ids, 0.0, random.Random(1)) == ids


def test_a_finished_model_goes_on_with_its_vocabulary_and_heads(base: Path, tmp_path: Path) -> None:
    first = train(config(base, tmp_path))
    config_file = json.loads((first / "config.json").read_text(encoding="utf-8"))
    further = CryptoTrainConfig.for_encoder(first, tmp_path / "further")
    assert further.pooling == config_file["kbert"]["pooling"]
    assert further.layers == config_file["num_hidden_layers"]
    still = Round(epochs=1, batch=16, rate=1e-9, splices=0, replay=0, background=0, augmented=0.0)
    settings = replace(config(first, tmp_path), out=tmp_path / "further", rounds=(still,), average=0.0)
    second = train(settings)
    before, after = (
        load_model(str(folder), head_set="crypto", precision="fp32") for folder in (first, second)
    )
    texts = [item.text for item in toy_rows(20)]
    for one, two in zip(before.classify(texts), after.classify(texts), strict=True):
        assert one["sentiment_strength"] == two["sentiment_strength"]
        assert one["certainty"] == pytest.approx(two["certainty"], abs=0.01)


def test_a_plain_encoder_is_no_finished_model(base: Path, tmp_path: Path) -> None:
    assert finished(base) is None
    assert finished(tmp_path) is None
