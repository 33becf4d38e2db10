"""Checkpoints by Hub id, against a Hub on localhost."""

import asyncio
import socket
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import constants
from typer.testing import CliRunner

from tests.checkpoints import SMALL, random_state, wordpiece_tokenizer, write_checkpoint
from tests.fake_hub import COMMIT, FakeHub, fake_hub
from worker.cli import app
from worker.doctor.finding import ok
from worker.doctor.model import check_model
from worker.inference import hub as client
from worker.inference import load
from worker.inference.checkpoint import resolve
from worker.inference.config import EncoderShape
from worker.inference.errors import CheckpointError
from worker.inference.load import load_model
from worker.settings import ModelSettings, Settings
from worker.training import crypto
from worker.training.distil import ModelTeacher

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


def pt_alone(tmp_path: Path, named: str, shape: EncoderShape) -> Path:
    """A folder with a ``.pt`` that names its encoder, whose tokeniser and config are not there."""
    directory = write_checkpoint(
        tmp_path / "alone",
        random_state(shape),
        shape,
        storage="pt",
        config=False,
        beside={"model_name": named},
    )
    (directory / "tokenizer.json").unlink()
    return directory


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


def test_a_revision_after_the_id_goes_before_the_setting(hub: FakeHub) -> None:
    files = resolve(f"{REPO}@{COMMIT}", revision="v9")
    assert (files.name, files.commit) == (REPO, COMMIT)
    with pytest.raises(CheckpointError, match=r"at revision v9 is not on the Hub: .*what follows the @"):
        resolve(f"{REPO}@v9", revision=COMMIT)


def test_of_several_pt_files_one_has_to_be_downloaded(hub: FakeHub) -> None:
    (hub.directory / "model.safetensors").unlink()
    for name in ("a.pt", "b.pt"):
        (hub.directory / name).write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"\(a.pt, b.pt\); .*the path of one of them, downloaded first"):
        resolve(REPO)


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
    assert client.fetch_tokeniser(REPO, revision=revision, offline=False).name == COMMIT


def test_a_hub_that_never_answers_and_nothing_cached_says_so(cache: Path, silent: None) -> None:
    for ask in (resolve, partial(client.fetch_tokeniser, revision=None, offline=False)):
        with pytest.raises(CheckpointError, match=r"cannot be fetched \(\w*Timeout\): check the network"):
            ask(REPO)


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_hub_in_trouble_but_cached_loads(hub: FakeHub, status: int) -> None:
    before = load_model(REPO, precision="fp32").classify(["가즈아"])
    hub.status = status
    assert load_model(REPO, precision="fp32").classify(["가즈아"]) == before


@pytest.mark.parametrize("status", [401, 403, 404])
def test_a_pinned_model_that_is_cached_asks_nobody(hub: FakeHub, status: int) -> None:
    resolve(REPO, revision=COMMIT)
    hub.status = status
    hub.tokens.clear()
    assert resolve(REPO, revision=COMMIT).commit == COMMIT
    assert client.fetch_tokeniser(REPO, revision=COMMIT, offline=False).name == COMMIT
    assert not hub.tokens


def test_a_model_that_is_cached_and_not_pinned_names_the_way(hub: FakeHub) -> None:
    resolve(REPO)
    hub.status = 403
    with pytest.raises(CheckpointError, match=r"\(403\).*; `model.offline=true` takes what the local cache"):
        resolve(REPO)


def test_a_cache_without_the_weights_is_called_so(hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    resolve(REPO, revision=COMMIT).weights[0].unlink()
    unreachable(monkeypatch)
    for offline in (True, False):
        with pytest.raises(CheckpointError, match=r"is only partly in the local cache: fetch it once"):
            resolve(REPO, revision=COMMIT, offline=offline)


def test_a_cache_without_settings_is_not_enough(hub: FakeHub) -> None:
    settings = hub.directory / "tokenizer_config.json"
    settings.write_text("{}")
    stored = resolve(REPO, revision=COMMIT).directory / settings.name
    stored.unlink()
    with pytest.raises(CheckpointError, match=r"is only partly in the local cache: fetch it once"):
        resolve(REPO, revision=COMMIT, offline=True)
    assert (resolve(REPO, revision=COMMIT).directory / settings.name).is_file()


def test_config_and_tokeniser_beside_weights_a_folder_down(hub: FakeHub) -> None:
    for file in hub.directory.iterdir():
        file.unlink()
    write_checkpoint(hub.directory, random_state(SMALL), storage="pt in a folder")
    for name in ("config.json", "tokenizer.json"):
        (hub.directory / name).rename(hub.directory / "model" / name)
    assert load_model(REPO, precision="fp32", threads=1).tokeniser.vocab_size == 33


def test_what_is_not_pinned_is_known(hub: FakeHub, tmp_path: Path) -> None:
    directory = pt_alone(tmp_path, REPO, SMALL)
    options: dict[str, Any] = {"precision": "fp32", "threads": 1}
    assert load_model(REPO, **options).unpinned == {REPO: "model.revision"}
    assert load_model(f"{REPO}@{COMMIT}", **options).unpinned == {}
    assert load_model(str(directory), **options).unpinned == {REPO: "model.tokeniser_revision"}
    assert load_model(str(directory), tokeniser_revision=COMMIT, **options).unpinned == {}


async def test_the_doctor_warns_of_what_is_not_pinned(
    hub: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def warned(**told: Any) -> list[str]:
        settings = Settings(model=ModelSettings(precision="fp32", device="cpu", threads=1, **told))
        findings = [found async for found in check_model(settings, "crypto", asyncio.Event())]
        assert findings[0].outcome == "ok"
        return [f"{found.said.split()[0]}: {found.mend}" for found in findings[1:]]

    alone = str(pt_alone(tmp_path, REPO, SMALL))
    assert await warned(ref=REPO) == [f"{REPO}: set model.revision to a commit of the Hub"]
    assert await warned(ref=alone) == [f"{REPO}: set model.tokeniser_revision to a commit of the Hub"]
    monkeypatch.chdir(hub.directory.parent.parent)
    assert await warned(ref=f"{hub.directory.parent.name}/{hub.directory.name}") == []
    assert await warned(ref=REPO, revision=COMMIT) == []


async def test_the_doctor_names_the_section_of_the_traffic_model(monkeypatch: pytest.MonkeyPatch) -> None:
    found = ok("model traffic", "loads"), {REPO: "model.revision"}
    monkeypatch.setattr("worker.doctor.model._classify", lambda *_: found)
    _, warned = [finding async for finding in check_model(Settings(), "traffic", asyncio.Event())]
    assert warned.mend == "set traffic.model.revision to a commit of the Hub"


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


def test_a_file_of_the_shared_store_is_known_by_its_first_link(hub: FakeHub, cache: Path) -> None:
    blob = resolve(REPO).weights[0].resolve()
    shared = cache / "blobs" / "ab" / ("ab" * 32)
    shared.parent.mkdir(parents=True)
    blob.rename(shared)
    blob.symlink_to(shared)
    assert resolve(REPO).weights[0].resolve() == shared
    shared.write_bytes(shared.read_bytes()[::-1])
    with pytest.raises(CheckpointError, match=rf"does not match its checksum; delete {shared} and fetch"):
        resolve(REPO)


def test_one_changed_character_of_a_small_file_is_refused(hub: FakeHub) -> None:
    content = "[PAD]\n[UNK]\n비트\n이더\n"
    (hub.directory / "vocab.txt").write_text(content, encoding="utf-8")
    stored = (resolve(REPO).directory / "vocab.txt").resolve()
    stored.write_text(content.replace("이더", "이너"), encoding="utf-8")
    for ask in (resolve, partial(client.fetch_tokeniser, revision=COMMIT, offline=True)):
        with pytest.raises(CheckpointError, match=rf"vocab.txt: does not match its .* delete {stored} and"):
            ask(REPO)
    stored.unlink()
    assert (resolve(REPO).directory / "vocab.txt").read_text(encoding="utf-8") == content


def test_damage_to_the_config_that_an_encoder_lends_is_refused(hub: FakeHub) -> None:
    config = client.fetch_tokeniser(REPO, revision=None, offline=False) / "config.json"
    config.resolve().write_text(config.read_text(encoding="utf-8").replace("4", "8", 1), encoding="utf-8")
    with pytest.raises(CheckpointError, match=r"config.json: does not match its checksum"):
        client.fetch_tokeniser(REPO, revision=None, offline=True)


def test_a_pt_file_without_tokeniser_takes_the_one_it_names(
    hub: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    narrow = replace(SMALL, hidden_size=96, heads=3)
    write_checkpoint(hub.directory, random_state(narrow), narrow)
    directory = pt_alone(tmp_path, REPO, narrow)
    model = load_model(str(directory / "lq-kbert-base.pt"), precision="fp32")
    expected = wordpiece_tokenizer().encode("비트코인 가즈아").ids
    assert model.tokeniser.encode(["비트코인 가즈아"])[0].ids.tolist() == expected
    assert sorted(hub.downloaded) == ["config.json", "tokenizer.json"]
    hub.downloaded.clear()
    pinned = load_model(str(directory), tokeniser_revision=COMMIT, precision="fp32", offline=True)
    assert pinned.tokeniser.encode(["비트코인 가즈아"])[0].ids.tolist() == expected
    assert model.classify(["가즈아"]) == load_model(REPO, precision="fp32").classify(["가즈아"])


def test_a_pt_file_whose_named_tokeniser_is_out_of_reach_says_so(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unreachable(monkeypatch)
    directory = pt_alone(tmp_path, "klue/bert-base", SMALL)
    with pytest.raises(CheckpointError, match=r"klue/bert-base.*put tokenizer.json beside the weights"):
        load_model(str(directory))


@pytest.mark.parametrize("heads", [3, 4], ids=["heads asked for", "heads known"])
def test_the_revision_of_the_tokeniser_is_asked_for(hub: FakeHub, tmp_path: Path, heads: int) -> None:
    shape = replace(SMALL, hidden_size=32 * heads, heads=heads) if heads == 3 else SMALL
    directory = pt_alone(tmp_path, REPO, shape)
    with pytest.raises(CheckpointError, match=r"at revision v9 is .* correct `model.tokeniser_revision`"):
        load_model(str(directory), tokeniser_revision="v9")


@pytest.mark.parametrize(
    "command",
    [
        ["classify"],
        ["classify", "--pipeline", "traffic"],
        ["narrative", "build", "--input", "articles.jsonl"],
        ["evaluate", "crypto"],
        ["evaluate", "traffic"],
    ],
    ids=" ".join,
)
def test_commands_hand_the_pins_of_the_settings_on(
    command: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: dict[str, Any] = {}

    def load_nothing(*_: object, **options: object) -> None:
        asked.update(options)
        raise CheckpointError("Enough.")

    monkeypatch.setattr(load, "load_model", load_nothing)
    pins = {"REVISION": "abc", "TOKENISER_REVISION": "def"}
    environment = {f"KBERT_{of}MODEL__{name}": pin for name, pin in pins.items() for of in ("", "TRAFFIC__")}
    CliRunner().invoke(app, command, env=environment)
    assert (asked["revision"], asked["tokeniser_revision"]) == ("abc", "def")


def test_a_compared_model_is_not_held_to_the_pins_of_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[object, object, object]] = []

    def load_nothing(ref: str, *, revision: object, tokeniser_revision: object, **_: object) -> None:
        asked.append((ref, revision, tokeniser_revision))

    monkeypatch.setattr(load, "load_model", load_nothing)
    environment = {
        "KBERT_MODEL__REF": "one/model",
        "KBERT_MODEL__REVISION": "abc",
        "KBERT_MODEL__TOKENISER_REVISION": "def",
    }
    CliRunner().invoke(app, ["evaluate", "crypto", "--compare", "other/model@v2"], env=environment)
    assert asked == [("one/model", "abc", "def"), ("other/model@v2", None, None)]


def test_a_teacher_is_pinned_and_stays_offline(hub: FakeHub) -> None:
    with pytest.raises(CheckpointError, match=r"is not in the local cache: fetch it once"):
        ModelTeacher.load([f"{REPO}@{COMMIT}"], offline=True)
    assert not hub.tokens, "offline asked the Hub"
    resolve(REPO)
    assert ModelTeacher.load([f"{REPO}@{COMMIT}"], offline=True).models[0].info.revision == COMMIT


@pytest.mark.parametrize("offline", [False, True])
def test_training_honours_the_setting_offline(
    tmp_path: Path, offline: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[crypto.CryptoTrainConfig] = []
    monkeypatch.setattr(crypto, "train", asked.append)
    base = write_checkpoint(tmp_path / "base", random_state(SMALL))
    command = ["train", "crypto", "--base", str(base), "--out", str(tmp_path), "--teacher", REPO]
    CliRunner().invoke(app, command, env={"KBERT_MODEL__OFFLINE": str(offline)}, catch_exceptions=False)
    assert [(config.teacher, config.offline) for config in asked] == [((REPO,), offline)]
