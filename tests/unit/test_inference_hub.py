"""Checkpoints by Hub id, against a Hub on localhost."""

import socket
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from huggingface_hub import constants

from tests.checkpoints import SMALL, random_state, wordpiece_tokenizer, write_checkpoint
from tests.fake_hub import COMMIT, FakeHub, fake_hub
from worker.inference import hub as client
from worker.inference.checkpoint import resolve
from worker.inference.errors import CheckpointError
from worker.inference.load import load_model

REPO = "LangQuant/LQ-Kbert-base"


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    return tmp_path / "cache"


@pytest.fixture
def hub(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    directory = write_checkpoint(tmp_path / "repository", random_state(SMALL))
    (directory / "modeling_kbert.py").write_text("raise SystemExit('remote code ran')\n")
    with fake_hub(REPO, directory) as served:
        point_at(served.endpoint, monkeypatch)
        yield served


def point_at(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As HF_ENDPOINT would, had it been set before huggingface_hub was imported."""
    monkeypatch.setattr(constants, "ENDPOINT", endpoint)
    template = constants.HUGGINGFACE_CO_URL_TEMPLATE.split("/{repo_id}", 1)[1]
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", f"{endpoint}/{{repo_id}}{template}")


def unreachable(monkeypatch: pytest.MonkeyPatch) -> None:
    point_at("http://127.0.0.1:9", monkeypatch)


@pytest.fixture
def silent(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A Hub that takes connections and never answers."""
    monkeypatch.setattr(client, "_PATIENCE", 0.05)
    with socket.create_server(("127.0.0.1", 0)) as server:
        point_at(f"http://127.0.0.1:{server.getsockname()[1]}", monkeypatch)
        yield


def test_a_hub_model_loads_with_its_commit_as_revision(hub: FakeHub) -> None:
    torch.save(random_state(SMALL), hub.directory / "pytorch_model.bin")
    model = load_model(REPO, precision="fp32")
    assert (model.info.name, model.info.revision) == (REPO, COMMIT)
    assert model.classify(["비트코인 가즈아"])[0]["sentiment_strength"]
    assert sorted(hub.downloaded) == ["config.json", "model.safetensors", "tokenizer.json"]


def test_code_is_never_fetched(hub: FakeHub) -> None:
    files = resolve(REPO)
    assert not list(files.directory.rglob("*.py"))
    assert "modeling_kbert.py" not in hub.downloaded


def test_lq_kbert_layout_with_the_weights_a_folder_down(hub: FakeHub) -> None:
    state = random_state(SMALL)
    for file in hub.directory.iterdir():
        file.unlink()
    write_checkpoint(
        hub.directory, state, storage="pt in a folder", config=False, beside={"emo_threshold": 0.25}
    )
    model = load_model(REPO, revision=COMMIT, precision="fp32")
    assert model.kbert.thresholds() == (0.25,) * 7
    assert model.info.revision == COMMIT


def test_the_pinned_revision_is_asked_for(hub: FakeHub) -> None:
    assert resolve(REPO, revision=COMMIT).commit == COMMIT
    with pytest.raises(CheckpointError, match=r"LQ-Kbert-base at revision v9 is not on the Hub: .*revision"):
        resolve(REPO, revision="v9")


def test_an_unknown_id_names_the_setting(hub: FakeHub) -> None:
    with pytest.raises(
        CheckpointError, match=r"Setting `model.ref`: some/where is not on the Hub: correct `model.ref`"
    ):
        resolve("some/where")


def test_a_gated_model_asks_for_the_token(hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.gated = True
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(hub.directory / "no-token"))
    with pytest.raises(CheckpointError, match=r"is gated: .*HF_TOKEN"):
        resolve(REPO)
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    assert resolve(REPO).commit == COMMIT
    assert "Bearer hf_secret" in hub.tokens


def test_no_answer_and_nothing_cached_says_so(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    unreachable(monkeypatch)
    with pytest.raises(
        CheckpointError, match=r"LQ-Kbert-base cannot be fetched .*check the network.*model.ref"
    ):
        resolve(REPO)


def test_no_answer_but_cached_loads(hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    before = load_model(REPO, precision="fp32").classify(["가즈아"])
    unreachable(monkeypatch)
    model = load_model(REPO, precision="fp32")
    assert model.info.revision == COMMIT
    assert model.classify(["가즈아"]) == before


@pytest.mark.parametrize("revision", [None, COMMIT])
def test_a_hub_that_never_answers_but_cached_loads(
    hub: FakeHub, silent: None, monkeypatch: pytest.MonkeyPatch, revision: str | None
) -> None:
    silence = constants.ENDPOINT
    point_at(hub.endpoint, monkeypatch)
    resolve(REPO)
    point_at(silence, monkeypatch)
    assert resolve(REPO, revision=revision).commit == COMMIT
    assert client.fetch_tokeniser(REPO, offline=False).name == COMMIT


def test_a_hub_that_never_answers_and_nothing_cached_says_so(cache: Path, silent: None) -> None:
    for ask in (resolve, partial(client.fetch_tokeniser, offline=False)):
        with pytest.raises(CheckpointError, match=r"cannot be fetched \(\w*Timeout\): check the network"):
            ask(REPO)


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_hub_in_trouble_but_cached_loads(hub: FakeHub, status: int) -> None:
    before = load_model(REPO, precision="fp32").classify(["가즈아"])
    hub.status = status
    assert load_model(REPO, precision="fp32").classify(["가즈아"]) == before


def test_offline_uses_the_cache_only(hub: FakeHub) -> None:
    with pytest.raises(CheckpointError, match=r"is not in the local cache: fetch it once"):
        resolve(REPO, offline=True)
    resolve(REPO)
    hub.tokens.clear()
    assert resolve(REPO, offline=True).commit == COMMIT
    assert not hub.tokens, "offline asked the Hub"


def test_a_damaged_download_is_refused(hub: FakeHub) -> None:
    weights = resolve(REPO).weights[0].resolve()
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"model.safetensors: does not match its checksum"):
        resolve(REPO)


def test_a_pt_file_without_tokeniser_takes_the_one_it_names(
    hub: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    narrow = replace(SMALL, hidden_size=96, heads=3)
    write_checkpoint(hub.directory, random_state(narrow), narrow)
    directory = write_checkpoint(
        tmp_path / "alone",
        random_state(narrow),
        narrow,
        storage="pt",
        config=False,
        beside={"model_name": REPO},
    )
    (directory / "tokenizer.json").unlink()
    model = load_model(str(directory / "lq-kbert-base.pt"), precision="fp32")
    expected = wordpiece_tokenizer().encode("비트코인 가즈아").ids
    assert model.tokeniser.encode(["비트코인 가즈아"])[0].ids.tolist() == expected
    assert sorted(hub.downloaded) == ["config.json", "tokenizer.json"]
    hub.downloaded.clear()
    assert model.classify(["가즈아"]) == load_model(REPO, precision="fp32").classify(["가즈아"])


def test_a_pt_file_whose_named_tokeniser_is_out_of_reach_says_so(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unreachable(monkeypatch)
    directory = write_checkpoint(
        tmp_path / "alone",
        random_state(SMALL),
        storage="pt",
        config=False,
        beside={"model_name": "klue/bert-base"},
    )
    (directory / "tokenizer.json").unlink()
    with pytest.raises(CheckpointError, match=r"klue/bert-base.*put tokenizer.json beside the weights"):
        load_model(str(directory))
