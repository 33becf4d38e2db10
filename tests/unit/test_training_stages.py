"""What the crypto recipe takes besides labels: unlabelled texts, an earlier run, teachers, other encoders."""

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from huggingface_hub import constants
from rich.console import Console
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
from typer.testing import CliRunner

from tests.unit.training_toys import FILLERS, row, toy_rows, write_base, write_jsonl
from worker.commands.models import train_app
from worker.errors import ConfigurationError
from worker.inference.checkpoint import load_checkpoint, resolve
from worker.inference.errors import CheckpointError
from worker.inference.load import load_model
from worker.training import crypto
from worker.training.crypto import PUBLISHED_ROUNDS, ROUNDS, CryptoTrainConfig, train
from worker.training.datasets import DatasetError
from worker.training.distil import mixed
from worker.training.examples import Example
from worker.training.heads import HeadSpec
from worker.training.losses import class_weights
from worker.training.mixture import Round
from worker.training.model import is_finished, load_encoder
from worker.training.objective import MaskedModel, MaskedObjective
from worker.training.provenance import StateMismatchError
from worker.training.trainer import Reader, Stage, StageConfig
from worker.training.unlabelled import load_texts
from worker.training.vocabulary import extend_tokenizer


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_base(tmp_path_factory.mktemp("base"))


def config(base: Path, folder: Path, count: int = 60) -> CryptoTrainConfig:
    data = write_jsonl(toy_rows(count), folder / "toy.jsonl")
    start = CryptoTrainConfig(base=base, out=folder / "run", data=(data,), extra=(), max_length=32)
    return replace(start, rounds=(Round(epochs=1, batch=16, rate=1e-3, splices=0),))


def test_masked_pieces_are_guessed_better_with_time(base: Path, tmp_path: Path) -> None:
    tokenizer = Tokenizer.from_file(str(base / "tokenizer.json"))
    torch.manual_seed(3)
    model = MaskedModel(load_encoder(base, 2, 0.0, 32))
    lines = ("오늘 비트 진짜 간다", "지금 이더 해킹 조심", "아침 점심 저녁 탑승")
    examples = [Example(line, {}) for line in lines * 40]
    settings = StageConfig("mlm", epochs=8, batch_size=16, learning_rate=3e-3)
    stage = Stage(model, MaskedObjective(tokenizer), settings, tmp_path, Console(quiet=True))
    stage.run(lambda _e, _r: examples, Reader(tokenizer, "", 32, 1))
    assert stage.curve[-1]["loss"] < 0.75 * stage.curve[0]["loss"]


def test_a_run_takes_over_the_stages_and_the_vocabulary_of_another(base: Path, tmp_path: Path) -> None:
    plain = tmp_path / "chatter.txt"
    plain.write_text("오늘 비트 간다\n\n쯧 쯧 지금 뭐야\n" * 20, encoding="utf-8")
    first = replace(config(base, tmp_path), mlm=(plain,), out=tmp_path / "first")
    train(first)
    assert {"mlm.pt", "mlm.csv", "tokenizer.json"} <= {p.name for p in first.out.iterdir()}
    rows = [*toy_rows(60), row("쀍 쀍 쀍 가즈아", "buy", "strong_pos"), row("쀍 탑승", "buy", "strong_pos")]
    second = replace(
        first,
        init=first.out,
        out=tmp_path / "second",
        mlm=(),
        data=(write_jsonl(rows, tmp_path / "b.jsonl"),),
    )
    folder = train(second)
    kept = Tokenizer.from_file(str(first.out / "tokenizer.json"))
    grown = Tokenizer.from_file(str(folder / "tokenizer.json"))
    assert grown.get_vocab_size() == kept.get_vocab_size() + 1
    assert grown.encode("오늘 비트").ids == kept.encode("오늘 비트").ids
    with pytest.raises(ConfigurationError, match="--init takes the output of a run"):
        train(replace(second, init=tmp_path / "nowhere", out=tmp_path / "third"))


def test_a_student_learns_what_its_teacher_says(base: Path, tmp_path: Path) -> None:
    teacher = train(replace(config(base, tmp_path), out=tmp_path / "teacher"))
    threads = torch.get_num_threads()
    student = train(replace(config(base, tmp_path), out=tmp_path / "student", teacher=(str(teacher),)))
    assert torch.get_num_threads() == threads
    # Loading refuses NaN, which is what targets without a class of their own once made of all weights.
    assert len(load_model(str(student), precision="fp32").classify(["오늘 비트 간다"])) == 1


def test_a_teacher_that_is_not_cached_is_not_fetched_offline(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    with pytest.raises(CheckpointError, match="some/where is not in the local cache"):
        train(replace(config(base, tmp_path), teacher=("some/where",), offline=True))


def test_classes_weigh_by_shares_where_annotators_differ() -> None:
    head = HeadSpec("head_act", 2, "class")
    sure = [Example("", {"head_act": 0})] * 3 + [Example("", {"head_act": 1})]
    shared = [Example("", {"head_act": (1.0, 0.0)})] * 2 + [Example("", {"head_act": (0.5, 0.5)})] * 2
    assert class_weights(shared, head).tolist() == class_weights(sure, head).tolist()


def test_a_run_takes_over_masked_language_modelling_alone(base: Path, tmp_path: Path) -> None:
    plain = tmp_path / "chatter.txt"
    plain.write_text("오늘 비트 간다\n지금 뭐야\n" * 20, encoding="utf-8")
    start = config(base, tmp_path)
    frozen = replace(start, rounds=(replace(start.rounds[0], rate=0.0),))
    first = replace(frozen, mlm=(plain,), out=tmp_path / "first")
    adapted = [train(one) for one in (first, replace(frozen, init=first.out, out=tmp_path / "second"))]
    words = [
        load_checkpoint(resolve(str(folder))).state["bert.embeddings.word_embeddings.weight"]
        for folder in (*adapted, train(frozen))
    ]
    torch.testing.assert_close(words[0], words[1], rtol=0, atol=0)
    assert not torch.equal(words[0], words[2])
    with pytest.raises(ConfigurationError, match="leave one out"):
        train(replace(first, init=first.out, out=tmp_path / "third"))
    with pytest.raises(StateMismatchError, match="another size"):
        train(replace(frozen, init=first.out, layers=1, out=tmp_path / "fourth"))


def test_a_run_is_not_taken_up_with_other_texts_or_stages(
    base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    done = config(base, tmp_path)
    train(done)
    assert "finished" not in capsys.readouterr().out
    assert train(done).is_dir()
    assert "crypto: finished at step" in capsys.readouterr().out
    other = write_jsonl(toy_rows(90), tmp_path / "other.jsonl")
    with pytest.raises(StateMismatchError, match=r"crypto.state.pt was written .*\(data\)"):
        train(replace(done, data=(other,)))
    with pytest.raises(StateMismatchError, match=r"\(pooling\)"):
        train(replace(done, pooling="cls"))


def test_a_left_out_register_is_one_that_is_there(base: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="no such register, only toy"):
        train(replace(config(base, tmp_path), leave_out=("chat_live",)))


def test_too_few_texts_are_refused_before_any_work(base: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="of 2 texts none falls into"):
        train(config(base, tmp_path, 2))


def test_an_encoder_with_fewer_positions_than_tokens_asked_for_is_refused(base: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"--max-length is 65, and .* has 64 positions"):
        train(replace(config(base, tmp_path), max_length=65))


def test_a_teacher_counts_for_its_share_of_a_class_and_alone_where_nothing_is_known() -> None:
    said = (0.2, 0.8, 0.0, 0.0, 0.0)
    assert mixed("head_senti", 0, said, 0.5, 0.0) == pytest.approx((0.6, 0.4, 0, 0, 0))
    assert mixed("head_emo", (0.4,) * 7, (0.8,) * 7, 0.25, 0.0) == pytest.approx((0.5,) * 7)
    assert mixed("head_reg", (0.4, float("nan"), 0.0), (0.8, 0.3, 0.2), 0.25, 0.1) == pytest.approx(
        (0.4, 0.3, 0.0)
    )


def test_an_encoder_of_base_size_gets_the_published_recipe(tmp_path: Path) -> None:
    big = tmp_path / "big"
    big.mkdir()
    (big / "config.json").write_text(json.dumps({"hidden_size": 768}), encoding="utf-8")
    settings = CryptoTrainConfig.for_encoder(big, tmp_path / "out", seed=7)
    assert (settings.pooling, settings.text_prefix, settings.max_length) == ("cls", "", 200)
    assert settings.rounds == PUBLISHED_ROUNDS
    assert settings.seed == 7
    (big / "config.json").write_text(json.dumps({"hidden_size": 384}), encoding="utf-8")
    assert CryptoTrainConfig.for_encoder(big, tmp_path / "out").pooling == "mean"
    with pytest.raises(ConfigurationError, match="--base takes"):
        CryptoTrainConfig.for_encoder(tmp_path, tmp_path / "out")


def test_a_wordpiece_vocabulary_takes_new_characters_at_the_start_and_inside_a_word() -> None:
    vocabulary = {"[PAD]": 0, "[UNK]": 1, "가": 2, "##나": 3}
    old = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    old.normalizer = normalizers.NFC()
    old.pre_tokenizer = pre_tokenizers.Whitespace()
    new = extend_tokenizer(old, ["쯧"])
    assert old.encode("쯧 가쯧").ids == [1, 1]
    assert new.encode("쯧 가쯧 가나").tokens == ["쯧", "가", "##쯧", "가", "##나"]


def test_unlabelled_texts_come_from_lines_and_from_jsonl(tmp_path: Path) -> None:
    jsonl = tmp_path / "a.jsonl"
    jsonl.write_text('{"text": "하나"}\n{"text": ""}\n\n', encoding="utf-8")
    lines = tmp_path / "b.txt"
    lines.write_text("둘\n\n셋\n", encoding="utf-8")
    assert list(load_texts([jsonl, lines])) == ["하나", "둘", "셋"]
    jsonl.write_text('{"text": "하나"}\n', encoding="utf-8-sig")
    lines.write_text("둘\n", encoding="utf-8-sig")
    assert list(load_texts([jsonl, lines])) == ["하나", "둘"]


@pytest.mark.parametrize(
    "line", ['{"body": 1}', '{"text": 5}', '{"text": null}', r'{"text": "\ud83d 간다"}', "[]"]
)
def test_a_line_without_a_text_is_named(tmp_path: Path, line: str) -> None:
    jsonl = tmp_path / "a.jsonl"
    jsonl.write_text(f'{{"text": "하나"}}\n{line}\n', encoding="utf-8")
    with pytest.raises(DatasetError, match=r"a\.jsonl:2"):
        list(load_texts([jsonl]))


def test_masked_language_modelling_reads_no_further_than_the_positions_go(base: Path, tmp_path: Path) -> None:
    long = tmp_path / "long.txt"
    long.write_text(f"{' '.join(FILLERS * 8)}\n" * 8, encoding="utf-8")
    settings = replace(config(base, tmp_path), mlm=(long,))
    assert train(settings).is_dir()


def test_taking_over_a_finished_model_names_its_run(base: Path, tmp_path: Path) -> None:
    start = config(base, tmp_path)
    run, model = tmp_path / "earlier", tmp_path / "earlier" / "model"
    model.mkdir(parents=True)
    for folder in (run, model):
        shutil.copy(base / "tokenizer.json", folder)
    with pytest.raises(ConfigurationError, match=r"--init takes the output of a run with --public or --mlm$"):
        train(replace(start, init=model))
    (run / "public.pt").touch()
    with pytest.raises(ConfigurationError, match=rf"or --mlm: name {run}$"):
        train(replace(start, init=model))


def test_texts_of_one_class_are_refused_before_any_stage(base: Path, tmp_path: Path) -> None:
    start = config(base, tmp_path)
    spliced = replace(start, rounds=(replace(start.rounds[0], splices=50),), public=tmp_path / "absent")
    with pytest.raises(ConfigurationError, match="lack weak_pos, weak_neg, hold, sell, info_only: --data"):
        train(spliced)


def test_an_encoder_without_weights_is_refused(base: Path, tmp_path: Path) -> None:
    bare = tmp_path / "bare"
    bare.mkdir()
    for name in ("config.json", "tokenizer.json"):
        shutil.copy(base / name, bare)
    with pytest.raises(ConfigurationError, match="bare holds no weights"):
        train(config(bare, tmp_path))


def test_other_weights_behind_the_same_path_are_another_run(tmp_path: Path) -> None:
    base = write_base(tmp_path / "base")
    done = config(base, tmp_path)
    train(done)
    weights = load_file(base / "model.safetensors")
    save_file(
        {name: value + 1 for name, value in weights.items()}, base / "model.safetensors", {"format": "pt"}
    )
    with pytest.raises(StateMismatchError, match=r"\(base\)"):
        train(done)


@pytest.mark.parametrize(
    "content",
    [
        "{",
        "[]",
        '{"hidden_size": "x"}',
        '{"kbert": 5}',
        '{"kbert": {"pooling": "sum"}}',
        '{"kbert": {}, "num_hidden_layers": "x"}',
    ],
)
def test_a_base_with_a_damaged_config_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "config.json").write_text(content, encoding="utf-8")
    with pytest.raises(ConfigurationError, match=r"config\.json"):
        CryptoTrainConfig.for_encoder(tmp_path, tmp_path / "out")


def test_a_config_that_is_not_json_is_refused_before_the_encoder_is_read(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{", encoding="utf-8")
    reads: list[Callable[[Path], object]] = [is_finished, lambda base: load_encoder(base, 2, 0.0, 32)]
    for read in reads:
        with pytest.raises(ConfigurationError, match=r"is not JSON .*: --base takes"):
            read(tmp_path)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"model_type": "nope"}, "has model type `nope`"),
        ({"num_attention_heads": "two"}, "expected int, got str"),
    ],
)
def test_a_config_that_transformers_cannot_take_is_refused(
    base: Path, tmp_path: Path, change: dict[str, str], reason: str
) -> None:
    config_file = json.loads((base / "config.json").read_text(encoding="utf-8"))
    (tmp_path / "config.json").write_text(json.dumps(config_file | change), encoding="utf-8")
    with pytest.raises(ConfigurationError, match=f"{reason}.*: --base takes"):
        load_encoder(tmp_path, 2, 0.0, 32)


@pytest.mark.parametrize("prefix", ["module.", "model.bert.", "bert."])
def test_weights_under_other_prefixes_and_wrapped_are_read(base: Path, tmp_path: Path, prefix: str) -> None:
    shutil.copy(base / "config.json", tmp_path)
    weights = load_file(base / "model.safetensors")
    state = {f"{prefix}{name}": value for name, value in weights.items()}
    torch.save({"state_dict": state, "model_name": "toy"}, tmp_path / "pytorch_model.bin")
    found = load_encoder(tmp_path, 2, 0.0, 64).state_dict()
    torch.testing.assert_close(found, load_encoder(base, 2, 0.0, 64).state_dict(), rtol=0, atol=0)
    name = "encoder.layer.1.output.dense.weight"
    torch.testing.assert_close(found[name], weights[name], rtol=0, atol=0)


def test_weights_of_other_names_are_refused(base: Path, tmp_path: Path) -> None:
    shutil.copy(base / "config.json", tmp_path)
    weights = load_file(base / "model.safetensors")
    whole = tmp_path / "model.safetensors"
    save_file({name: value for name, value in weights.items() if "layer.1." not in name}, whole)
    with pytest.raises(ConfigurationError, match=r"lack encoder\.layer\.1\..* and 13 more: --base takes"):
        load_encoder(tmp_path, 2, 0.0, 64)
    assert load_encoder(tmp_path, 1, 0.0, 64).config.num_hidden_layers == 1
    save_file({f"encoder_{name}": value for name, value in weights.items()}, whole)
    with pytest.raises(ConfigurationError, match="lack embeddings"):
        load_encoder(tmp_path, 2, 0.0, 64)
    save_file({**weights, "head_senti.weight": torch.zeros(5, 32)}, whole)
    with pytest.raises(ConfigurationError, match="heads of a finished model, and its config"):
        load_encoder(tmp_path, 2, 0.0, 64)


def test_reading_an_encoder_draws_no_random_numbers(base: Path) -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    load_encoder(base, 2, 0.0, 32)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_refused_run_leaves_the_vocabulary_of_the_stages(base: Path, tmp_path: Path) -> None:
    plain = tmp_path / "chatter.txt"
    plain.write_text("오늘 비트 간다\n" * 8, encoding="utf-8")
    done = replace(config(base, tmp_path), mlm=(plain,))
    train(done)
    before = (done.out / "tokenizer.json").read_bytes()
    rows = [*toy_rows(60), row("쀍 쀍 쀍 가즈아", "buy", "strong_pos"), row("쀍 탑승", "buy", "strong_pos")]
    with pytest.raises(StateMismatchError, match="vocabulary"):
        train(replace(done, data=(write_jsonl(rows, tmp_path / "b.jsonl"),)))
    assert (done.out / "tokenizer.json").read_bytes() == before
    assert not list(done.out.glob("mlm.state.pt"))


def test_a_run_broken_off_after_its_masked_stage_ends_as_an_unbroken_one(base: Path, tmp_path: Path) -> None:
    plain = tmp_path / "chatter.txt"
    plain.write_text("오늘 비트 간다\n" * 8, encoding="utf-8")
    settings = replace(config(base, tmp_path), mlm=(plain,))
    whole = load_file(train(settings) / "model.safetensors")
    shutil.rmtree(settings.out / "model")
    (settings.out / "crypto.state.pt").unlink()
    again = load_file(train(settings) / "model.safetensors")
    torch.testing.assert_close(again, whole, rtol=0, atol=0)


def test_a_run_does_not_write_over_its_base(tmp_path: Path) -> None:
    run = write_base(tmp_path / "run")
    for base in (run, write_base(run / "model")):
        with pytest.raises(ConfigurationError, match=rf"--out {run} would write over --base {base}"):
            train(config(base, tmp_path))


def test_background_and_replay_are_read_only_where_they_are_mixed_in(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []

    def load(_folder: Path, name: str) -> list[Example]:
        read.append(name)
        return []

    for name in ("background", "public"):
        monkeypatch.setattr(f"worker.training.{name}.load_{name}", partial(load, name=name))
    start = replace(config(base, tmp_path), public=tmp_path)
    plain = replace(start, rounds=(replace(start.rounds[0], background=0, replay=0),))
    train(plain)
    assert read == ["public"]
    train(replace(start, out=tmp_path / "mixed"))
    assert read == ["public", "background", "public"]


@pytest.mark.parametrize(("size", "rate", "splices"), [(384, 1e-4, 16_000), (768, 2e-5, 0)])
def test_a_finished_model_goes_on_at_the_rate_of_its_size(
    tmp_path: Path, size: int, rate: float, splices: int
) -> None:
    said = {"hidden_size": size, "kbert": {"head_set": "crypto", "pooling": "mean"}}
    (tmp_path / "config.json").write_text(json.dumps(said), encoding="utf-8")
    settings = CryptoTrainConfig.for_encoder(tmp_path, tmp_path / "out")
    assert [(part.rate, part.splices, part.epochs) for part in settings.rounds] == [(rate, splices, 3)]
    assert settings.pooling == "mean"
    with pytest.raises(ConfigurationError, match=r"is a finished model, .*: leave --init out"):
        (tmp_path / "tokenizer.json").touch()
        (tmp_path / "public.pt").touch()
        train(replace(config(tmp_path, tmp_path), init=tmp_path))
    said["kbert"] = {"head_set": "traffic"}
    (tmp_path / "config.json").write_text(json.dumps(said), encoding="utf-8")
    with pytest.raises(ConfigurationError, match="holds a finished traffic model: --base takes"):
        CryptoTrainConfig.for_encoder(tmp_path, tmp_path / "out")


def test_damaged_weights_are_refused(base: Path, tmp_path: Path) -> None:
    shutil.copy(base / "config.json", tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"damaged")
    with pytest.raises(ConfigurationError, match="holds no weights that can be read"):
        load_encoder(tmp_path, 2, 0.0, 32)


def test_a_damaged_tokenizer_is_refused(base: Path, tmp_path: Path) -> None:
    bare = tmp_path / "bare"
    bare.mkdir()
    shutil.copy(base / "config.json", bare)
    (bare / "tokenizer.json").write_text("{", encoding="utf-8")
    with pytest.raises(ConfigurationError, match=r"tokenizer\.json is not a tokenizer .*: --base and"):
        train(config(bare, tmp_path))


def test_epochs_rate_and_batch_go_before_those_of_the_recipe(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[CryptoTrainConfig] = []

    def trained(given: CryptoTrainConfig) -> Path:
        asked.append(given)
        return given.out

    monkeypatch.setattr(crypto, "train", trained)
    monkeypatch.setattr("worker.commands.models._need_training_packages", lambda: None)
    command = ["crypto", "--base", str(base), "--out", str(tmp_path)]
    given = ["--epochs", "2", "--rate", "3e-5", "--batch", "7"]
    for options in ([], given):
        result = CliRunner().invoke(train_app, [*command, *options])
        assert result.exit_code == 0, result.output
    assert asked[0].rounds == ROUNDS
    assert asked[1].rounds == (replace(ROUNDS[0], epochs=2, rate=3e-5, batch=7),)
