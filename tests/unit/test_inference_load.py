"""One call from a name to answers, and what it asks of the machine."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.checkpoints import SMALL, random_state, write_checkpoint
from worker.inference import devices, load
from worker.inference.devices import choose_device, choose_dtype, choose_threads
from worker.inference.encoder import Encoder
from worker.inference.errors import CheckpointError, DeviceError, EngineOutOfMemory
from worker.inference.load import BUNDLED, Model, load_model
from worker.inference.tokenising import EncodedText

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    path = write_checkpoint(
        tmp_path_factory.mktemp("model"),
        random_state(SMALL),
        kbert={
            "name": "toy",
            "pooling": "mean",
            "text_prefix": "to ",
            "max_length": 12,
            "emo_threshold": [0.5, 0.4, 0.3, 0.6, 0.7, 0.5, 0.5],
            "temperature": {"action_signal": 2.0},
        },
    )
    return load_model(str(path), precision="fp32", threads=1)


def near(fields: dict[str, Any]) -> Any:
    """The sixth decimal may fall either way with the batch."""
    return {
        name: near(value)
        if isinstance(value, dict)
        else pytest.approx(value, abs=3e-6)
        if isinstance(value, float)
        else value
        for name, value in fields.items()
    }


class TestClassify:
    TEXTS = ("가즈아", "", "비트코인 떡상 to the moon", "이더 " * 400, "?", "손절 매수 나락")

    def test_each_text_has_the_answer_that_it_has_alone(self, model: Model) -> None:
        together = model.classify(self.TEXTS, max_batch_tokens=16)
        assert together == [near(model.classify([text])[0]) for text in self.TEXTS]
        assert [fields["truncated"] for fields in together] == [False, False, False, True, False, False]

    def test_order_holds_beyond_one_window(self, model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(load, "_SORT_WINDOW", 4)
        texts = [self.TEXTS[number % 6] for number in range(31)]
        alone = {text: near(model.classify([text])[0]) for text in self.TEXTS}
        assert model.classify(texts, max_batch_tokens=20) == [alone[text] for text in texts]

    def test_nothing_gives_nothing(self, model: Model) -> None:
        assert model.classify([]) == []

    def test_fields(self, model: Model) -> None:
        fields = model.classify(["가즈아"])[0]
        assert set(fields) == {
            "sentiment_strength",
            "action_signal",
            "emotions",
            "certainty",
            "relevance",
            "toxicity",
            "scores",
            "truncated",
        }

    def test_the_kbert_object_rules(self, model: Model) -> None:
        assert (model.info.name, model.max_length, model.head_set) == ("toy", 12, "crypto")
        assert model.kbert.thresholds() == (0.5, 0.4, 0.3, 0.6, 0.7, 0.5, 0.5)
        assert model.tokeniser.encode(["moon"])[0].ids.tolist() == [2, 15, 17, 3]
        assert max(len(text) for text in model.tokeniser.encode(self.TEXTS)) == 12
        logits = model.engine.infer(model.tokeniser.encode(["가즈아"]))["logits_act"][0].astype(float)
        shares = np.exp(logits / 2) / np.exp(logits / 2).sum()
        told = list(model.classify(["가즈아"])[0]["scores"]["action_signal"].values())
        np.testing.assert_allclose(told, shares, atol=1e-6)


class TestEngine:
    def test_batch_size_and_description(self, model: Model) -> None:
        assert model.default_batch_tokens >= 1024
        assert "cpu" in model.engine.description
        assert "float32" in model.engine.description

    @pytest.mark.parametrize(
        "error",
        [
            MemoryError(),
            torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 GiB"),
            RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 9 bytes."),
        ],
    )
    def test_out_of_memory_has_one_name(
        self, model: Model, error: Exception, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fails(*_: Any) -> None:
            raise error

        prepared = model.engine.prepare(model.tokeniser.encode(["가즈아"]))
        monkeypatch.setattr(Encoder, "__call__", fails)
        with pytest.raises(EngineOutOfMemory):
            model.engine.run(prepared)

    def test_other_errors_keep_theirs(self, model: Model) -> None:
        beyond = EncodedText(np.array([1, 10_000], dtype=np.int32), False)
        with pytest.raises((IndexError, RuntimeError)):
            model.engine.infer([beyond])
        assert model.classify(["가즈아"]), "the engine works on"

    def test_what_is_no_number_is_no_answer(self, tmp_path: Path) -> None:
        state = random_state(SMALL)
        state["head_reg.bias"][0] = 3e38
        state["head_reg.weight"][0] = 3e38
        model = load_model(str(write_checkpoint(tmp_path, state)), precision="fp32")
        with pytest.raises(FloatingPointError):
            model.classify(["가즈아", "비트코인"])

    def test_threads_are_set_in_the_thread_that_runs(self, tmp_path: Path) -> None:
        path = write_checkpoint(tmp_path, random_state(SMALL))
        before = torch.get_num_threads()
        try:
            load_model(str(path), threads=1).classify(["가즈아"])
            assert torch.get_num_threads() == 1
        finally:
            torch.set_num_threads(before)

    def test_a_token_costs_its_length_not_the_longest(self, model: Model) -> None:
        lengths = [3] * 63 + [12]
        batch = [EncodedText(np.full(length, 5, dtype=np.int32), False) for length in lengths]
        prepared = model.engine.prepare(batch)
        rows = sum(part.packing.rows for part in prepared.parts)
        assert sum(lengths) <= rows < 1.2 * sum(lengths) < 0.5 * 64 * 12


class TestDevices:
    @pytest.mark.parametrize("asked", ["cuda", "cuda:3"])
    def test_a_device_that_is_not_there(self, asked: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
        with pytest.raises(DeviceError, match=rf"Setting `model.device`: '{asked}' is not there \(0 CUDA"):
            choose_device(asked)

    @pytest.mark.parametrize("asked", ["mps", "gpu", ""])
    def test_a_device_that_is_unknown(self, asked: str) -> None:
        with pytest.raises(DeviceError, match=r"Setting `model.device`: .*use auto, cpu, cuda or cuda:N"):
            choose_device(asked)

    def test_auto_device(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for there, kind in ((True, "cuda"), (False, "cpu")):
            monkeypatch.setattr(torch.cuda, "is_available", lambda there=there: there)
            assert choose_device("auto").type == kind

    @pytest.mark.parametrize(
        ("found", "seconds", "dtype"),
        [
            ({"avx512_bf16": True}, 0.5, torch.bfloat16),
            ({"avx512_bf16": True}, 2.0, torch.float32),
            ({"amx_bf16": True, "avx512_bf16": False}, 0.5, torch.bfloat16),
            ({"avx512_f": True, "avx512_bf16": False}, 0.5, torch.float32),
            ({}, 0.5, torch.float32),
        ],
    )
    def test_auto_precision_on_a_cpu(
        self, found: dict[str, bool], seconds: float, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """``seconds`` of a product in bf16, where one in fp32 takes 1."""
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: found)
        taken = {torch.float32: 1.0, torch.bfloat16: seconds}
        monkeypatch.setattr(devices, "_product_seconds", taken.__getitem__)
        devices.bf16_pays.cache_clear()
        try:
            assert choose_dtype("auto", CPU) == dtype
        finally:
            devices.bf16_pays.cache_clear()

    @pytest.mark.parametrize(
        ("capability", "dtype"),
        [((7, 5), torch.float16), ((8, 0), torch.bfloat16), ((9, 0), torch.bfloat16)],
    )
    def test_auto_precision_on_cuda(
        self, capability: tuple[int, int], dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)
        assert choose_dtype("auto", torch.device("cuda")) == dtype

    @pytest.mark.parametrize(("asked", "sentence"), [("int4", "'int4' is unknown"), ("fp16", "fp16 is slow")])
    def test_a_precision_that_cannot_be(self, asked: str, sentence: str) -> None:
        with pytest.raises(DeviceError, match=rf"Setting `model.precision`: {sentence}"):
            choose_dtype(asked, CPU)

    def test_int8_is_for_a_cpu(self) -> None:
        with pytest.raises(DeviceError, match=r"Setting `model.precision`: int8 runs on a CPU only"):
            choose_dtype("int8", torch.device("cuda"))

    @pytest.mark.parametrize(
        ("own", "files", "cores"),
        [
            (None, {"cpu.max": "200000 100000"}, 2),
            ("0::/", {"cpu.max": "150000 100000"}, 2),
            ("0::/", {"cpu.max": "1000 100000"}, 1),
            ("0::/", {}, 64),
            ("0::/", {"cpu.max": "max 100000"}, 64),
            ("0::/", {"cpu.max": "nonsense"}, 64),
            ("0::/a.slice/b.service", {"a.slice/b.service/cpu.max": "300000 100000"}, 3),
            (
                "0::/a.slice/b.service",
                {"a.slice/b.service/cpu.max": "max 100000", "a.slice/cpu.max": "400000 100000"},
                4,
            ),
            (
                "0::/a.slice/b.service",
                {"a.slice/b.service/cpu.max": "900000 100000", "a.slice/cpu.max": "200000 100000"},
                2,
            ),
            ("0::/not/seen/from/a/container", {"cpu.max": "500000 100000"}, 5),
            (
                "12:memory:/c\n4:cpu,cpuacct:/c\n0::/",
                {"cpu,cpuacct/c/cpu.cfs_quota_us": "200000\n", "cpu,cpuacct/c/cpu.cfs_period_us": "100000\n"},
                2,
            ),
            (
                "4:cpu:/docker/c",
                {"cpu/cpu.cfs_quota_us": "300000", "cpu/cpu.cfs_period_us": "100000"},
                3,
            ),
            ("4:cpu:/", {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, 64),
        ],
    )
    def test_threads_heed_the_container(
        self,
        own: str | None,
        files: dict[str, str],
        cores: int,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)), raising=False)
        monkeypatch.setattr(devices, "_CGROUPS", tmp_path)
        monkeypatch.setattr(devices, "_OWN_CGROUPS", tmp_path / "own")
        for name, content in files.items() | ({("own", own)} if own is not None else set()):
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text(content)
        assert choose_threads(None) == cores
        assert choose_threads(5) == 5

    def test_no_threads(self) -> None:
        with pytest.raises(DeviceError, match=r"Setting `model.threads`: 0 is too few"):
            choose_threads(0)


def test_a_model_that_does_not_fit_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: Any, **__: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 352.00 MiB")

    path = write_checkpoint(tmp_path / "toy", random_state(SMALL))
    monkeypatch.setattr(Encoder, "__init__", fails)
    with pytest.raises(
        DeviceError, match=r"Setting `model.device`: toy does not fit on cpu; free it, choose"
    ):
        load_model(str(path), precision="fp32", threads=1, device="cpu")


@pytest.mark.skipif(not Path("/proc/self/maps").is_file(), reason="only Linux lists what is mapped")
def test_the_weights_file_is_free_once_it_is_read(tmp_path: Path) -> None:
    path = write_checkpoint(tmp_path, random_state(SMALL))
    model = load_model(str(path), precision="fp32", threads=1)
    before = model.classify(["가즈아"])
    file = path / "model.safetensors"
    assert str(file) not in Path("/proc/self/maps").read_text(encoding="utf-8")
    file.write_bytes(b"")
    assert model.classify(["가즈아"]) == before


class TestPrecisions:
    def test_bf16_runs_wherever_torch_runs(self, tmp_path: Path) -> None:
        path = str(write_checkpoint(tmp_path, random_state(SMALL, std=0.05)))
        exact = load_model(path, precision="fp32").classify(["비트코인 가즈아", ""])
        coarse = load_model(path, precision="bf16").classify(["비트코인 가즈아", ""])
        for left, right in zip(exact, coarse, strict=True):
            assert left["certainty"] == pytest.approx(right["certainty"], abs=0.05)


def test_no_model_bundled_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(load, "BUNDLED", tmp_path)
    with pytest.raises(CheckpointError, match=r"crypto"):
        load_model()


def test_a_start_without_transformers(tmp_path: Path) -> None:
    """Cold start is torch's import and little else; OpenMP must know its wait policy before it."""
    path = write_checkpoint(tmp_path, random_state(SMALL))
    program = (
        "import sys, os, json; from worker.inference.load import load_model;"
        "early = 'torch' in sys.modules;"
        f"load_model({str(path)!r}).classify(['가즈아']);"
        "print(json.dumps([early, 'transformers' in sys.modules, os.environ['OMP_WAIT_POLICY']]))"
    )
    environment = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
    ran = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, env=environment
    )
    assert json.loads(ran.stdout) == [False, False, "PASSIVE"]


@pytest.mark.skipif(not (BUNDLED / "crypto" / "config.json").is_file(), reason="no model is bundled")
class TestBundled:
    def test_it_reads_as_a_reader_would(self) -> None:
        said = load_model(precision="fp32", threads=1).classify(
            ["비트 지금이라도 탑승해야됨 존나 간다", "해킹 터짐, 비상. 접근 금지"]
        )
        assert [(fields["sentiment_strength"], fields["action_signal"]) for fields in said] == [
            ("strong_pos", "buy"),
            ("strong_neg", "avoid"),
        ]
