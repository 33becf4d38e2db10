"""`kbert bench engine` measures what it says."""

import itertools
import json
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from tests.checkpoints import SMALL
from worker.benchmarks import engine as bench
from worker.benchmarks import exported_peers, latency, pipeline
from worker.benchmarks import plot as plots
from worker.benchmarks.null_engine import NullEngine
from worker.benchmarks.transformers_peer import TransformersPeer, padded
from worker.cli import app
from worker.errors import ConfigurationError
from worker.inference.config import EncoderShape
from worker.inference.errors import DeviceError
from worker.inference.tokenising import EncodedText
from worker.settings import ModelSettings, load_settings

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
    plots.check_plot(plot)
    assert plot.parent.is_dir()
    assert not plot.exists()
    found = bench.bench_engine(
        messages=40, repeats=2, threads=1, spinning=True, by_batch_tokens=True, report=told.append
    )
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
        share = kind["useful_gflops"] / found["matrix_gflops"]
        assert kind["useful_share"] == pytest.approx(share, abs=0.2 / found["matrix_gflops"] + 0.001)
    assert found["news"]["lengths"]["mean"] > 2 * found["lengths"]["mean"]
    assert sum("ours" in line for line in told) == 2 * len(found["ours_by_precision"])
    assert found["peer_settings"]["session.intra_op.allow_spinning"] == "1"
    assert "OMP_WAIT_POLICY" in found["peer_settings"]
    plots.draw_throughput(found, plot)
    assert plot.read_bytes().startswith(b"\x89PNG")


MEASURED = {
    "machine": {"name": "a machine", "threads": 1, "torch": "2"},
    "by_batch_tokens": {"fp32": {"64": 1.0}},
}


@pytest.fixture
def asked_for(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What the command hands to the benchmark, which measures nothing."""
    found: list[dict[str, Any]] = []

    def measure(**asked: Any) -> dict[str, Any]:
        found.append(asked)
        return MEASURED

    monkeypatch.setattr(bench, "bench_engine", measure)
    return found


def invoke(*arguments: str, **settings: str) -> Any:
    environment = {f"KBERT_MODEL__{name.upper()}": value for name, value in settings.items()}
    return CliRunner().invoke(app, ["bench", *arguments], env=environment)


def test_the_settings_and_options_reach_the_benchmark(asked_for: list[dict[str, Any]]) -> None:
    options = ["--messages", "9", "--repeats", "2", "--max-batch-tokens", "512", "--no-peers", "--spinning"]
    done = invoke("engine", *options, precision="fp8", device="cuda", threads="3", cuda_graphs="true")
    assert done.exit_code == 0
    (asked,) = asked_for
    assert callable(asked.pop("report"))
    assert asked == {
        "messages": 9,
        "repeats": 2,
        "precision": "fp8",
        "device": "cuda",
        "threads": 3,
        "cuda_graphs": True,
        "max_batch_tokens": 512,
        "peers": False,
        "spinning": True,
        "by_batch_tokens": False,
    }


@pytest.mark.parametrize("command", ["engine", "latency"])
def test_a_plot_that_cannot_be_drawn_is_refused_before_measuring(
    command: str, asked_for: list[dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(latency, "bench_latency", bench.bench_engine)
    (tmp_path / "file").touch()
    (tmp_path / "folder.png").mkdir()
    for path in (tmp_path / "file" / "a.png", tmp_path / "folder.png", tmp_path / "a.txt"):
        done = invoke(command, "--plot", str(path))
        assert isinstance(done.exception, ConfigurationError)
        assert str(path) in str(done.exception)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    done = invoke(command, "--plot", str(tmp_path / "a.png"))
    assert isinstance(done.exception, ConfigurationError)
    assert "kbert-stream[bench]" in str(done.exception)
    assert not asked_for


@pytest.mark.parametrize(
    ("command", "draw"),
    [
        ("engine", "worker.benchmarks.plot.draw_throughput"),
        ("latency", "worker.benchmarks.latency_plot.plot_latency"),
    ],
)
def test_the_result_is_printed_before_it_is_drawn(
    command: str,
    draw: str,
    asked_for: list[dict[str, Any]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def measure(*_: Any, **asked: Any) -> dict[str, Any]:
        return bench.bench_engine(**asked)

    def fail(*_: Any) -> None:
        raise MemoryError

    monkeypatch.setattr(latency, "bench_latency", measure)
    monkeypatch.setattr(draw, fail)
    done = invoke(command, "--json", "--plot", str(tmp_path / "a.png"))
    assert isinstance(done.exception, MemoryError)
    assert json.loads(done.stdout) == MEASURED
    assert len(asked_for) == 1


def test_a_repeat_holds_several_full_batches() -> None:
    assert bench.messages_of(1024, "cpu") == bench.messages_of(2048, "cpu") == 256
    for budget, device in ((16_384, "cpu"), (16_384, "cuda")):
        tokens = sum(map(len, bench.chat_texts(bench.messages_of(budget, device), 100)))
        assert tokens > 0.9 * bench._FULL_BATCHES[device] * budget


@pytest.mark.usefixtures("small")
def test_the_messages_follow_the_batch() -> None:
    found = bench.bench_engine(
        precision="fp32", repeats=1, threads=1, max_batch_tokens=4096, peers=False, device="cpu"
    )
    assert found["lengths"]["messages"] == 512
    assert found["peer_settings"] is None


class Watched:
    """An engine that writes down what happens, and whose first run waits for the second batch's layout."""

    def __init__(self) -> None:
        self.laid_out: list[list[int]] = []
        self.ran: list[list[int]] = []
        self.threads: set[int] = set()
        self.second = threading.Event()

    def prepare(self, batch: Sequence[EncodedText]) -> list[int]:
        self.laid_out.append([len(text) for text in batch])
        if len(self.laid_out) == 2:
            self.second.set()
        return self.laid_out[-1]

    def run(self, prepared: list[int]) -> None:
        assert self.second.wait(10)
        self.threads.add(threading.get_ident())
        self.ran.append(prepared)


def test_a_batch_is_laid_out_while_the_one_before_it_runs() -> None:
    engine: Any = Watched()
    texts = [EncodedText(np.zeros(length, dtype=np.int32), False) for length in (3, 3, 4, 9, 2, 3)]
    bench.run_in_arrival_order(engine, texts, 8)
    assert engine.ran == engine.laid_out == [[3, 3], [4], [9], [2, 3]]
    assert engine.threads == {threading.get_ident()}
    bench.run_in_arrival_order(engine, [], 8)
    assert len(engine.ran) == 4


def test_what_fails_while_it_is_laid_out_reaches_the_caller() -> None:
    class Refusing(Watched):
        def prepare(self, batch: Sequence[EncodedText]) -> list[int]:
            made = super().prepare(batch)
            if len(self.laid_out) == 2:
                raise MemoryError
            return made

    engine: Any = Refusing()
    with pytest.raises(MemoryError):
        bench.run_in_arrival_order(engine, bench.chat_texts(9, 100), 8)


class Clocked:
    """An engine that takes so many seconds a text."""

    default_batch_tokens = 2048

    def __init__(self, precision: str, clock: list[float]) -> None:
        self.precision = precision
        self._clock = clock

    def prepare(self, batch: Sequence[EncodedText]) -> int:
        return len(batch)

    def run(self, prepared: int) -> None:
        self._clock[0] += prepared * {"bf16": 0.02, "int8": 0.01}[self.precision]


def test_auto_takes_the_fastest_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]

    def seconds(run: Callable[[], None]) -> float:
        start = clock[0]
        run()
        return clock[0] - start

    monkeypatch.setattr(bench, "_seconds", seconds)
    monkeypatch.setattr(bench, "precisions_of", lambda _: ["bf16", "int8"])
    monkeypatch.setattr(bench, "base_engine", lambda _, __, name, *___, **____: Clocked(name, clock))
    cpu = torch.device("cpu")
    engine, rates = bench.chosen_engine({}, SMALL, "auto", cpu, 1)
    assert engine.precision == "int8"
    assert rates == {"bf16": 50.0, "int8": 100.0}
    engine, rates = bench.chosen_engine({}, SMALL, "bf16", cpu, 1)
    assert engine.precision == "bf16"
    assert rates == {}


async def test_pipeline_and_latency_choose_their_engine_by_that_rule(monkeypatch: pytest.MonkeyPatch) -> None:
    class ChosenError(Exception):
        pass

    def choose(_: Any, shape: EncoderShape, precision: str, *__: Any, **asked: Any) -> Any:
        raise ChosenError(shape, precision, asked)

    loaded: list[dict[str, Any]] = []

    def load(**asked: Any) -> Any:
        loaded.append(asked)
        return SimpleNamespace(
            tokeniser=SimpleNamespace(encode=lambda texts: bench.chat_texts(len(texts), 9))
        )

    settings = load_settings(_env_file=None)
    settings = settings.model_copy(update={"model": ModelSettings(cuda_graphs=True, device="cpu")})
    for module in (pipeline, latency):
        monkeypatch.setattr(module, "load_model", load)
        monkeypatch.setattr(module, "BERT_BASE", SMALL)
        monkeypatch.setattr(module, "chosen_engine", choose)
    with pytest.raises(ChosenError) as chosen:
        await pipeline.bench_pipeline(settings, messages=4, null_messages=4)
    assert chosen.value.args == (SMALL, "auto", {"cuda_graphs": True})
    with pytest.raises(ChosenError) as chosen:
        await latency.bench_latency(settings, size="base")
    assert chosen.value.args == (SMALL, "auto", {"cuda_graphs": True})
    assert loaded[-1]["cuda_graphs"] is True


@pytest.mark.usefixtures("small")
def test_graphs_without_a_gpu_are_refused() -> None:
    with pytest.raises(DeviceError, match=r"model\.cuda_graphs"):
        bench.bench_engine(device="cpu", cuda_graphs=True)


def test_fp8_is_held_against_a_product_in_fp8(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "choose_dtype", lambda *_: torch.bfloat16)
    right = torch.randn(32, 32)
    with torch.inference_mode():
        plain, own = bench._products("fp8", torch.device("cpu"), right)
        assert plain().shape == own().shape == (32, 32)
        torch.testing.assert_close(plain().float(), own().float(), rtol=0.1, atol=2.0)


@pytest.mark.usefixtures("small")
def test_a_peer_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exported_peers, "find_spec", lambda name: None if name == "openvino" else True)
    absent = exported_peers.absent_peers()
    assert set(absent) == {name for name in EXPORTED if "OpenVINO" in name}
    assert set(absent.values()) == {"not installed: openvino; pip install 'kbert-stream[bench]'"}


@pytest.mark.parametrize("spinning", [False, True])
def test_onnx_runtime_spins_where_it_is_let(
    spinning: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    found: list[str] = []

    def session(_: str, options: Any, **__: Any) -> None:
        found.append(options.get_session_config_entry("session.intra_op.allow_spinning"))

    monkeypatch.setattr(onnxruntime, "InferenceSession", session)
    exported_peers._onnx_runtime(tmp_path / "a.onnx", 1, spinning)
    monkeypatch.setenv("OMP_WAIT_POLICY", "PASSIVE")
    assert exported_peers.peer_settings(spinning=spinning) == {
        "session.intra_op.allow_spinning": found[0],
        "OMP_WAIT_POLICY": "PASSIVE",
    }
    assert found == ["1" if spinning else "0"]


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
