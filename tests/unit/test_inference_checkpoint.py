"""Every storage and key layout loads to the same model; every broken one is refused by name."""

import json
import os
import pickle
import re
import struct
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from tokenizers import models

from schemas.labels import EMOTIONS
from tests.checkpoints import (
    SMALL,
    State,
    Storage,
    bert_config,
    quantised,
    random_state,
    wordpiece_tokenizer,
    write_checkpoint,
)
from worker.errors import ConfigurationError
from worker.inference.checkpoint import load_checkpoint, resolve
from worker.inference.errors import CheckpointError
from worker.inference.load import load_model

TEXTS = ["", "가", "비트코인 가즈아!", "이더 나락 존버 " * 60]
STORAGES: list[Storage] = ["safetensors", "sharded", "bin", "sharded bin", "pt", "pt in a folder", "plain pt"]
# Inference of the head width needs 64: these are 2 heads of 64.
WIDE = replace(SMALL, hidden_size=128, heads=2)


def answers(path: Path) -> list[dict[str, Any]]:
    return load_model(str(path), precision="fp32", threads=1).classify(TEXTS)


def refusal(path: Path) -> str:
    with pytest.raises(CheckpointError) as caught:
        load_model(str(path), precision="fp32")
    sentence = str(caught.value)
    assert "\n" not in sentence
    return sentence


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    return answers(write_checkpoint(tmp_path_factory.mktemp("plain"), random_state(WIDE), WIDE))


class TestLayouts:
    @pytest.mark.parametrize("storage", STORAGES)
    @pytest.mark.parametrize("config", [True, False], ids=["config", "no config"])
    def test_storages(
        self, storage: Storage, config: bool, tmp_path: Path, expected: list[dict[str, Any]]
    ) -> None:
        path = write_checkpoint(tmp_path / "m", random_state(WIDE), WIDE, storage=storage, config=config)
        assert answers(path) == expected

    @pytest.mark.parametrize("prefix", ["module.", "model.", "module.model.", "_orig_mod."])
    @pytest.mark.parametrize("storage", ["safetensors", "pt"])
    def test_key_prefixes(
        self, prefix: str, storage: Storage, tmp_path: Path, expected: list[dict[str, Any]]
    ) -> None:
        state = {prefix + name: tensor for name, tensor in random_state(WIDE).items()}
        assert answers(write_checkpoint(tmp_path, state, WIDE, storage=storage)) == expected

    def test_what_the_pooler_and_buffers_hold_does_not_matter(
        self, tmp_path: Path, expected: list[dict[str, Any]]
    ) -> None:
        state = random_state(WIDE)
        state["bert.embeddings.position_ids"] = torch.arange(WIDE.positions)[None]
        state["bert.embeddings.token_type_ids"] = torch.zeros(1, WIDE.positions, dtype=torch.long)
        state["bert.pooler.dense.weight"] = torch.ones(WIDE.hidden_size, WIDE.hidden_size)
        state["bert.pooler.dense.bias"] = torch.ones(WIDE.hidden_size)
        assert answers(write_checkpoint(tmp_path, state, WIDE)) == expected

    def test_old_names_of_norms(self, tmp_path: Path, expected: list[dict[str, Any]]) -> None:
        state = {
            name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): t
            for name, t in random_state(WIDE).items()
        }
        assert answers(write_checkpoint(tmp_path, state, WIDE)) == expected

    def test_one_weight_file_alone(self, tmp_path: Path, expected: list[dict[str, Any]]) -> None:
        path = write_checkpoint(tmp_path, random_state(WIDE), WIDE, storage="pt", config=False)
        model = load_model(str(path / "lq-kbert-base.pt"), precision="fp32")
        assert model.classify(TEXTS) == expected
        assert model.info.name == "lq-kbert-base"

    def test_half_precision_storage(self, tmp_path: Path) -> None:
        state = {name: tensor.half() for name, tensor in random_state(SMALL).items()}
        widened = {name: tensor.float() for name, tensor in state.items()}
        assert answers(write_checkpoint(tmp_path / "a", state)) == answers(
            write_checkpoint(tmp_path / "b", widened)
        )

    def test_remote_code_is_ignored(self, tmp_path: Path) -> None:
        path = write_checkpoint(tmp_path, random_state(SMALL))
        ran = tmp_path / "ran"
        (path / "modeling_kbert.py").write_text(f"open({str(ran)!r}, 'w')\n")
        told = {"auto_map": {"AutoModel": "modeling_kbert.Kbert", "AutoTokenizer": "modeling_kbert.T"}}
        (path / "config.json").write_text(json.dumps(bert_config(SMALL, **told)))
        answers(path)
        assert not ran.exists()

    def test_safetensors_come_before_pickles(self, tmp_path: Path) -> None:
        path = write_checkpoint(tmp_path, random_state(SMALL))
        (path / "pytorch_model.bin").write_bytes(b"not even a pickle")
        (path / "other.pt").write_bytes(b"nor this")
        assert [file.name for file in resolve(str(path)).weights] == ["model.safetensors"]


class TestIdentity:
    def test_name_and_revision_of_local_files(self, tmp_path: Path) -> None:
        path = write_checkpoint(tmp_path / "my-model", random_state(SMALL))
        first = load_checkpoint(resolve(str(path))).info
        assert first.name == "my-model"
        assert len(first.revision) == 12
        changed = random_state(SMALL)
        changed["head_reg.bias"][0] += 1
        save_file(changed, path / "model.safetensors")
        assert load_checkpoint(resolve(str(path))).info.revision != first.revision

    def test_whatever_changes_the_answers_changes_the_revision(self, tmp_path: Path) -> None:
        def revision(**kbert: Any) -> str:
            path = write_checkpoint(tmp_path, random_state(SMALL), kbert=kbert)
            return load_checkpoint(resolve(str(path))).info.revision

        changes: list[dict[str, Any]] = [
            {},
            {"emo_threshold": 0.25},
            {"temperature": {"action_signal": 2.0}},
            {"text_prefix": "query: "},
            {"pooling": "mean"},
            {"max_length": 20},
        ]
        found = [revision(**change) for change in changes]
        assert revision() == revision(name="renamed", head_set="crypto") == found[0]
        (tmp_path / "tokenizer_config.json").write_text(json.dumps({"do_lower_case": False}))
        found.append(revision())
        assert len(set(found)) == len(found)

    def test_a_config_beside_weights_a_folder_down(self, tmp_path: Path) -> None:
        shape = replace(SMALL, hidden_size=312, heads=12)
        path = write_checkpoint(tmp_path, random_state(shape), shape, storage="pt in a folder", config=False)
        (path / "model" / "config.json").write_text(json.dumps(bert_config(shape)))
        assert load_checkpoint(resolve(str(path))).shape.heads == 12

    def test_name_from_the_config(self, tmp_path: Path) -> None:
        path = write_checkpoint(tmp_path, random_state(SMALL), kbert={"name": "kbert-crypto-small"})
        assert load_model(str(path)).info.name == "kbert-crypto-small"

    def test_threshold_of_a_pt_file(self, tmp_path: Path) -> None:
        for number, value in enumerate([0.125, np.float64(0.125), np.float16(0.125), torch.tensor(0.125)]):
            path = write_checkpoint(
                tmp_path / str(number),
                random_state(SMALL),
                storage="pt",
                beside={"emo_threshold": value, "model_name": "klue/bert-base"},
            )
            assert load_model(str(path)).kbert.thresholds() == (0.125,) * 7

    def test_thresholds_of_a_pt_file_one_for_each_emotion(self, tmp_path: Path) -> None:
        seven = tuple(number / 8 for number in range(1, 8))
        given = [
            np.array(seven),
            np.array(seven, dtype=np.float32),
            np.array(seven, dtype=np.float16),
            torch.tensor(seven),
            dict(zip(reversed(EMOTIONS), reversed(seven), strict=True)),
        ]
        for number, value in enumerate(given):
            path = write_checkpoint(
                tmp_path / str(number), random_state(SMALL), storage="pt", beside={"emo_threshold": value}
            )
            assert load_model(str(path)).kbert.thresholds() == seven

    @pytest.mark.parametrize("dtype", [np.int32, np.int64])
    def test_whole_thresholds_of_a_pt_file(self, dtype: type[np.integer[Any]], tmp_path: Path) -> None:
        for number, value in enumerate([dtype(1), np.ones(7, dtype=dtype)]):
            path = write_checkpoint(
                tmp_path / str(number), random_state(SMALL), storage="pt", beside={"emo_threshold": value}
            )
            assert load_model(str(path)).kbert.thresholds() == (1.0,) * 7

    @pytest.mark.parametrize("core", [b"numpy.core", b"numpy._core"])
    def test_thresholds_of_any_numpy(self, core: bytes, tmp_path: Path) -> None:
        path = write_checkpoint(tmp_path, random_state(SMALL), storage="pt")
        file = path / "lq-kbert-base.pt"
        for value in (np.float64(0.25), np.full(7, 0.25, dtype=">f4")):
            content = {"state_dict": random_state(SMALL), "emo_threshold": value}
            torch.save(content, file, _use_new_zipfile_serialization=False)
            now = np.float64(0).__reduce__()[0].__module__.rpartition(".")[0].encode()
            assert now + b".multiarray" in file.read_bytes()
            file.write_bytes(file.read_bytes().replace(now + b".multiarray", core + b".multiarray"))
            assert load_checkpoint(resolve(str(path))).kbert.thresholds() == (0.25,) * 7

    def test_heads_of_the_encoder_that_a_pt_file_names(self, tmp_path: Path) -> None:
        encoder = write_checkpoint(tmp_path / "encoder", random_state(SMALL))
        for beside in (True, False):
            path = write_checkpoint(
                tmp_path / str(beside),
                random_state(SMALL),
                storage="pt",
                config=False,
                beside={"model_name": str(encoder)},
            )
            if not beside:
                (path / "tokenizer.json").unlink()
            assert answers(path) == answers(encoder)

    def test_head_set_is_found_and_compared(self, tmp_path: Path) -> None:
        path = write_checkpoint(tmp_path, random_state(SMALL, "traffic"))
        model = load_model(str(path), head_set=None)
        assert model.head_set == "traffic"
        assert model.max_length == SMALL.positions
        with pytest.raises(CheckpointError, match=r"has the heads of traffic, and the crypto pipeline"):
            load_model(str(path), head_set="crypto")


class _Reduced:
    """Pickled as a call of numpy's."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return self.call


class _Bomb:
    """Unpickling it writes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return os.system, (f"touch {self.path}",)


class TestRefused:
    @pytest.mark.filterwarnings("ignore:Detected pickle protocol")
    @pytest.mark.parametrize("storage", ["bin", "pt"])
    @pytest.mark.parametrize("protocol", [2, 4])
    def test_a_pickle_with_code_does_not_run(self, storage: Storage, protocol: int, tmp_path: Path) -> None:
        path = write_checkpoint(tmp_path / "m", random_state(SMALL), storage=storage)
        ran = tmp_path / "ran"
        file = next(file for file in path.iterdir() if file.suffix in (".bin", ".pt"))
        torch.save({**random_state(SMALL), "extra": _Bomb(ran)}, file, pickle_protocol=protocol)
        assert "holds more than weights, and code from a checkpoint never runs" in refusal(path)
        file.write_bytes(pickle.dumps(_Bomb(ran), protocol=protocol))
        assert "code from a checkpoint never runs" in refusal(path)
        assert not ran.exists()
        os.system(_Bomb(ran).__reduce__()[1][0])  # noqa: S605 - it would have worked
        assert ran.exists()

    def test_numpy_in_a_pickle_makes_numbers_and_no_objects(self, tmp_path: Path) -> None:
        """An array of objects over bytes of the file would take them for addresses."""
        objects, address = _Reduced(np.dtype, "O"), bytearray(struct.pack("<Q", 0x414141414141))
        given: list[Any] = [
            _Reduced(np.ndarray, (1,), objects, address),
            _Reduced(np.ndarray, (1,), np.dtype("f8"), address),
            np.array(["a"], dtype=object),
            np.array(["a"]),
            np.zeros(1, dtype=[("a", "f8")]),
            np.datetime64("2026-01-01"),
            _Reduced(np.float64(0).__reduce__()[0], objects, bytes(address)),
            _Reduced(np.float64(0).__reduce__()[0], np.dtype("f8"), b"four"),
        ]
        path = write_checkpoint(tmp_path, random_state(SMALL), storage="pt")
        for value in given:
            torch.save({"state_dict": random_state(SMALL), "emo_threshold": value}, path / "lq-kbert-base.pt")
            said = refusal(path)
            assert "holds more than weights" in said or "cannot be read" in said

    @pytest.mark.parametrize(
        ("change", "sentence"),
        [
            (lambda s: s.pop("head_emo.bias"), "lacks head_emo.bias; the checkpoint is incomplete"),
            (
                lambda s: [
                    s.pop(f"head_{head}.{part}") for head in ("emo", "reg") for part in ("weight", "bias")
                ],
                "lacks head_emo.weight, head_emo.bias, head_reg.weight, head_reg.bias;",
            ),
            (
                lambda s: s.update({"head_emo.weight": torch.zeros(8, SMALL.hidden_size)}),
                "head_emo.weight is [8, 32] instead of [7, 32]",
            ),
            (
                lambda s: s.update({"bert.encoder.layer.1.output.dense.weight": torch.zeros(32, 81)}),
                "bert.encoder.layer.1.output.dense.weight is [32, 81] instead of [32, 80]",
            ),
            (
                lambda s: s.update({"head_extra.weight": torch.zeros(2, 32)}),
                "holds unexpected head_extra.weight;",
            ),
            (
                lambda s: [s.update({f"bert.adapter.{n}": torch.zeros(1)}) for n in range(9)],
                "unexpected bert.adapter.0, bert.adapter.1, bert.adapter.2, bert.adapter.3, bert.adapter.4 "
                "and 4 more",
            ),
            (
                lambda s: s.pop("bert.encoder.layer.1.attention.self.key.weight"),
                "lacks bert.encoder.layer.1.attention.self.key.weight",
            ),
            (
                lambda s: [s.pop(name) for name in list(s) if name.startswith("head_")],
                "holds no heads: neither head_senti, head_act, head_emo, head_reg (crypto) nor classifier",
            ),
            (
                lambda s: s.update({"classifier.weight": torch.zeros(2, 32)}),
                "holds heads of both sets",
            ),
            (
                lambda s: [s.pop(name) for name in list(s) if name.startswith("bert.embeddings.word")],
                "lacks bert.embeddings.word_embeddings.weight; the names of a BERT encoder",
            ),
            (
                lambda s: s["bert.embeddings.LayerNorm.bias"].fill_(float("nan")),
                "bert.embeddings.LayerNorm.bias holds NaN or infinity",
            ),
            (
                lambda s: s.update({"bert.encoder.layer.99999999.x": torch.zeros(1)}),
                "numbers its layers up to 99999999 and holds 4 of them",
            ),
            (
                lambda s: s.update({"head_act.bias": torch.zeros(6, dtype=torch.int32)}),
                "head_act.bias is int32; floats are needed, or int8 with a scale",
            ),
            (
                lambda s: s.update({"head_act.bias": torch.zeros(6, dtype=torch.complex64)}),
                "head_act.bias is complex64; floats are needed",
            ),
        ],
    )
    def test_weights(self, change: Callable[[State], object], sentence: str, tmp_path: Path) -> None:
        state = random_state(SMALL)
        change(state)
        assert sentence in refusal(write_checkpoint(tmp_path, state))

    @pytest.mark.parametrize(
        ("change", "sentence"),
        [
            (lambda s: s.pop("head_act.weight.scale"), "head_act.weight is int8 and head_act.weight.scale"),
            (
                lambda s: s.update({"head_act.weight.scale": torch.ones(5, dtype=torch.float16)}),
                "head_act.weight.scale is [5], and head_act.weight is [6, 32]: one number a row",
            ),
            (
                lambda s: s.update({"head_act.bias.scale": torch.ones(6)}),
                "head_act.bias.scale scales a tensor that is not int8",
            ),
        ],
    )
    def test_int8(self, change: Callable[[State], object], sentence: str, tmp_path: Path) -> None:
        state = quantised(random_state(SMALL))
        change(state)
        assert sentence in refusal(write_checkpoint(tmp_path, state))

    @pytest.mark.parametrize(
        ("config", "sentence"),
        [
            ({"model_type": "roberta"}, "`model_type` is 'roberta', and only BERT encoders run here"),
            ({"model_type": ["bert"]}, "`model_type` is ['bert']; a name is expected"),
            ({"hidden_act": ["gelu"]}, "`hidden_act` is ['gelu']; known are gelu,"),
            ({"hidden_act": "quick_gelu"}, "`hidden_act` is 'quick_gelu'; known are gelu,"),
            (
                {"num_attention_heads": 5},
                "`num_attention_heads` is 5, which does not divide the hidden size 32",
            ),
            ({"num_attention_heads": "4"}, "`num_attention_heads` is '4'"),
            ({"layer_norm_eps": "tiny"}, "`layer_norm_eps` is 'tiny'"),
            ({"layer_norm_eps": float("nan")}, "`layer_norm_eps` is nan"),
            ({"layer_norm_eps": float("inf")}, "`layer_norm_eps` is inf"),
            ({"position_embedding_type": "relative_key"}, "only 'absolute' is supported"),
            ({"num_hidden_layers": 2}, "in config.json `num_hidden_layers` is 2 and the weights say 3"),
            ({"kbert": {"pooling": "max"}}, "`kbert.pooling` is not usable"),
            ({"kbert": {"emo_threshold": [0.5, 0.5]}}, "`kbert.emo_threshold` holds 2 numbers"),
            ({"kbert": {"emo_threshold": 2}}, "`kbert.emo_threshold"),
            ({"kbert": {"temperature": {"action_signal": 0}}}, "`kbert.temperature.action_signal"),
            ({"kbert": {"temperature": {"mood": 1}}}, "`kbert.temperature.mood"),
            ({"kbert": {"max_length": 999}}, "`kbert.max_length` is 999, and the encoder has 256 positions"),
            ({"kbert": {"head_set": "traffic"}}, "holds the heads of 'crypto', and `kbert.head_set`"),
            ({"kbert": [1]}, "a JSON object is expected"),
            ({"is_decoder": True}, "`is_decoder` is True: its tokens see only those before them"),
        ],
    )
    def test_config(self, config: dict[str, Any], sentence: str, tmp_path: Path) -> None:
        path = write_checkpoint(tmp_path, random_state(SMALL))
        (path / "config.json").write_text(json.dumps({**bert_config(SMALL), **config}))
        assert sentence in refusal(path)

    @pytest.mark.parametrize(
        ("names", "told", "sentence"),
        [
            (["LABEL_0", "LABEL_1"], {}, None),
            (["0", "1"], {}, None),
            (["non-negative", "negative narrative"], {}, None),
            (["non_negative", "Negative"], {}, None),
            (["neutral", "부정"], {}, None),
            (["label_0", "label_1"], {}, None),
            (["비부정 서사", "부정적 서사"], {}, None),
            (["negative", "non_negative"], {}, "`id2label` calls column 0 'negative' and column 1 'non_n"),
            (["LABEL_1", "LABEL_0"], {}, "swap the rows of classifier.weight"),
            (["부정", "비부정"], {"head_set": "traffic"}, "swap the rows of classifier.weight"),
            (["a", "b"], {}, "calls the columns 'a' and 'b', which does not tell the negative one"),
            (["a", "b"], {"head_set": "traffic"}, None),
        ],
    )
    def test_names_of_the_traffic_labels(
        self, names: list[str], told: dict[str, str], sentence: str | None, tmp_path: Path
    ) -> None:
        path = write_checkpoint(tmp_path, random_state(SMALL, "traffic"))
        config = bert_config(SMALL, id2label=dict(zip("01", names, strict=True)), kbert=told)
        (path / "config.json").write_text(json.dumps(config))
        if sentence is None:
            assert load_checkpoint(resolve(str(path))).head_set == "traffic"
        else:
            with pytest.raises(CheckpointError, match=re.escape(sentence)):
                load_checkpoint(resolve(str(path)))

    @pytest.mark.parametrize("hidden", [312, 384])
    def test_heads_that_nothing_tells(self, hidden: int, tmp_path: Path) -> None:
        shape = replace(SMALL, hidden_size=hidden)
        path = write_checkpoint(tmp_path, random_state(shape), shape, storage="pt", config=False)
        assert f"how many attention heads an encoder {hidden} wide has; put the" in refusal(path)

    @pytest.mark.parametrize("positions", [514, 8194])
    def test_roberta_without_config(self, positions: int, tmp_path: Path) -> None:
        shape = replace(SMALL, positions=positions, token_types=1)
        path = write_checkpoint(tmp_path, random_state(shape), shape, config=False)
        assert "has one token type, as RoBERTa has" in refusal(path)
        (path / "config.json").write_text(json.dumps(bert_config(shape)))
        load_model(str(path), precision="fp32")

    @pytest.mark.parametrize("storage", STORAGES)
    def test_damaged_files(self, storage: Storage, tmp_path: Path) -> None:
        path = write_checkpoint(tmp_path, random_state(SMALL), storage=storage)
        file = resolve(str(path)).weights[0]
        file.write_bytes(file.read_bytes()[:-2000])
        assert f"{file}: cannot be read" in refusal(path)

    @pytest.mark.parametrize("storage", ["bin", "sharded bin", "pt"])
    @pytest.mark.parametrize(
        "content", [b"version https://git-lfs.github.com/spec/v1\n", b"<html>not found</html>", b""]
    )
    def test_what_is_no_weight_file(self, storage: Storage, content: bytes, tmp_path: Path) -> None:
        path = write_checkpoint(tmp_path, random_state(SMALL), storage=storage)
        file = resolve(str(path)).weights[0]
        file.write_bytes(content)
        assert f"{file}: is no weight file (a Git LFS pointer?); fetch it again" in refusal(path)

    def test_a_missing_shard(self, tmp_path: Path) -> None:
        path = write_checkpoint(tmp_path, random_state(SMALL), storage="sharded")
        (path / "model-00002-of-00002.safetensors").unlink()
        assert "names model-00002-of-00002.safetensors, which is missing" in refusal(path)

    def test_an_index_that_points_elsewhere(self, tmp_path: Path) -> None:
        path = write_checkpoint(tmp_path / "m", random_state(SMALL), storage="sharded")
        for name in ("../secret.safetensors", 5):
            outside = {"weight_map": {"a": name}}
            (path / "model.safetensors.index.json").write_text(json.dumps(outside))
            assert f"names {name!r}, which does not lie beside the index" in refusal(path)

    def test_an_index_of_nothing(self, tmp_path: Path) -> None:
        path = write_checkpoint(tmp_path, random_state(SMALL), storage="sharded")
        (path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {}}))
        assert "model.safetensors.index.json: names no files; fetch the checkpoint again" in refusal(path)

    def test_a_name_twice(self, tmp_path: Path) -> None:
        state = random_state(SMALL)
        state["model.head_reg.bias"] = state["head_reg.bias"].clone()
        assert "holds head_reg.bias twice" in refusal(write_checkpoint(tmp_path, state))

    def test_several_pt_files(self, tmp_path: Path) -> None:
        path = write_checkpoint(tmp_path, random_state(SMALL), storage="pt")
        (path / "b.pt").write_bytes(b"")
        assert "several .pt files (b.pt, lq-kbert-base.pt); set `model.ref` to the path of" in refusal(path)

    def test_no_weights(self, tmp_path: Path) -> None:
        path = write_checkpoint(tmp_path, random_state(SMALL))
        (path / "model.safetensors").unlink()
        assert "holds no weights: expected model.safetensors" in refusal(path)

    def test_no_state_dict(self, tmp_path: Path) -> None:
        path = write_checkpoint(tmp_path, random_state(SMALL), storage="pt")
        torch.save([torch.zeros(1)], path / "lq-kbert-base.pt")
        assert "holds no state_dict" in refusal(path)
        torch.save({"a": 1}, path / "lq-kbert-base.pt")
        assert "a is no tensor" in refusal(path)

    def test_no_tokeniser(self, tmp_path: Path) -> None:
        path = write_checkpoint(tmp_path, random_state(SMALL))
        (path / "tokenizer.json").unlink()
        assert "holds no tokeniser and names none; put tokenizer.json beside the weights" in refusal(path)

    @pytest.mark.parametrize("name", ["tokenizer_config.json", "added_tokens.json"])
    def test_settings_alone_are_no_tokeniser(self, name: str, tmp_path: Path) -> None:
        named = write_checkpoint(tmp_path / "named", random_state(SMALL))
        path = write_checkpoint(
            tmp_path / "m", random_state(SMALL), storage="pt", beside={"model_name": str(named)}
        )
        (path / "tokenizer.json").unlink()
        (path / name).write_text("{}")
        assert load_checkpoint(resolve(str(path))).tokeniser_directory == named
        (named / "tokenizer.json").rename(named / name)
        assert f"{named}: holds no vocabulary; put tokenizer.json there" in refusal(path)

    def test_a_tokeniser_that_takes_hangul_apart(self, tmp_path: Path) -> None:
        path = write_checkpoint(tmp_path, random_state(SMALL))
        (path / "tokenizer_config.json").write_text(json.dumps({"do_lower_case": True}))
        assert 'put `"do_lower_case": false` into tokenizer_config.json' in refusal(path)

    def test_what_a_library_says_is_cut_to_its_first_line(self, tmp_path: Path) -> None:
        path = write_checkpoint(tmp_path, random_state(SMALL), config=False)
        (path / "tokenizer.json").unlink()
        (path / "vocab.txt").write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\n비트\n")
        assert "its tokeniser cannot be loaded" in refusal(path)

    def test_a_tokeniser_of_another_model(self, tmp_path: Path) -> None:
        shape = replace(SMALL, vocab_size=20)
        path = write_checkpoint(tmp_path, random_state(shape), shape)
        assert "the tokeniser's ids need 33 rows and the weights have 20" in refusal(path)

    def test_a_tokeniser_that_leaves_ids_out(self, tmp_path: Path) -> None:
        tokenizer = wordpiece_tokenizer()
        ids = tokenizer.get_vocab()
        for last in (SMALL.vocab_size - 1, SMALL.vocab_size):
            tokenizer.model = models.WordPiece({**ids, "가즈아": last}, unk_token="[UNK]")
            path = write_checkpoint(tmp_path / str(last), random_state(SMALL), tokenizer=tokenizer)
            if last < SMALL.vocab_size:
                assert load_model(str(path), precision="fp32").classify(["가즈아"])
            else:
                assert "the tokeniser's ids need 65 rows and the weights have 64" in refusal(path)

    @pytest.mark.parametrize(
        ("ref", "sentence"),
        [
            ("./nowhere", "./nowhere is neither a directory nor a weight file here, nor a Hub id"),
            ("a/b/c", "nor a Hub id (owner/name or owner/name@revision)"),
            ("a/b@", "nor a Hub id"),
            ("~nosuchuser/m", "~nosuchuser/m cannot be looked into ("),
            ("x" * 300, "cannot be looked into (File name too long); correct it"),
        ],
    )
    def test_a_name_that_means_nothing(self, ref: str, sentence: str) -> None:
        with pytest.raises(ConfigurationError) as caught:
            resolve(ref)
        assert str(caught.value).startswith("Setting `model.ref`: ")
        assert sentence in str(caught.value)

    @pytest.mark.parametrize("method", ["is_dir", "iterdir"])
    def test_a_place_that_may_not_be_read(
        self, method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def refused(_: Path) -> None:
            raise PermissionError(13, "Permission denied")

        monkeypatch.setattr(Path, method, refused)
        with pytest.raises(
            CheckpointError, match=r"Setting `model.ref`: .* \(Permission denied\); correct it"
        ):
            resolve(str(tmp_path))

    def test_a_config_that_may_not_be_read(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        path = write_checkpoint(tmp_path, random_state(SMALL))
        files, read = resolve(str(path)), Path.read_text

        def refused(file: Path, *arguments: Any) -> str:
            if file.name == "config.json":
                raise PermissionError(13, "Permission denied")
            return read(file, *arguments)

        monkeypatch.setattr(Path, "read_text", refused)
        with pytest.raises(CheckpointError, match=r"config.json: cannot be read \(Permission denied\)"):
            load_checkpoint(files)

    def test_a_file_that_holds_no_weights(self, tmp_path: Path) -> None:
        path = write_checkpoint(tmp_path, random_state(SMALL))
        with pytest.raises(CheckpointError, match=r"config.json is no weight file"):
            resolve(str(path / "config.json"))
