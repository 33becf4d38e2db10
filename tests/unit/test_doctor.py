"""What `kbert doctor` says of this machine and of Kafka, without servers."""

from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka.errors import ClusterAuthorizationFailedError
from huggingface_hub import constants

from worker.doctor import kafka
from worker.doctor.finding import Finding, ok
from worker.doctor.machine import check_machine
from worker.errors import ConnectionFailedError
from worker.settings import (
    CoinSettings,
    KafkaSettings,
    ModelSettings,
    PipelineName,
    Settings,
    TopicSettings,
    TrafficModelSettings,
    TrafficSettings,
)

HUB = "owner/name"


def machine(settings: Settings) -> dict[str, Finding]:
    return {finding.check: finding for finding in check_machine(settings)}


@pytest.mark.parametrize("text", ['[coins.XYZ]\nname = ["x"]\n', "[coins\n", "[coins.xyz]\n"])
def test_a_coin_file_that_cannot_be_used_is_a_failure(text: str, tmp_path: Path) -> None:
    file = tmp_path / "coins.toml"
    file.write_text('[coins.XYZ]\nkorean = "엑스"\n')
    settings = Settings(coins=CoinSettings(user_file=file))
    assert machine(settings)["coins"].outcome == "ok"
    file.write_text(text)
    found = machine(settings)["coins"]
    assert found.outcome == "fail"
    assert str(file) in found.said
    assert "coins.user_file" in (found.mend or "")
    assert "coins" not in machine(settings.model_copy(update={"pipelines": ["traffic"]}))


def _models(crypto: str | None, traffic: str | None, *, offline: bool = False) -> dict[str, Any]:
    return {
        "model": ModelSettings(ref=crypto, offline=offline),
        "traffic": TrafficSettings(model=TrafficModelSettings(ref=traffic, offline=offline)),
    }


@pytest.mark.parametrize(
    ("pipelines", "refs", "looked_at"),
    [
        (["crypto"], (HUB, None), True),
        (["crypto"], (None, HUB), False),
        (["traffic"], (None, HUB), True),
        (["traffic"], (HUB, None), False),
        (["crypto", "traffic"], (None, HUB), True),
    ],
)
def test_the_hub_cache_is_looked_at_for_the_models_that_are_loaded(
    pipelines: list[PipelineName],
    refs: tuple[str | None, str | None],
    looked_at: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    found = machine(Settings(pipelines=pipelines, **_models(*refs)))
    assert ("hub cache" in found) == looked_at
    if looked_at:
        assert str(tmp_path / "cache") in found["hub cache"].said


@pytest.mark.parametrize(
    ("setting", "variable", "outcome"), [(False, False, "warn"), (True, False, "ok"), (False, True, "ok")]
)
def test_a_hub_cache_need_not_be_writable_offline(
    setting: bool, variable: bool, outcome: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worker.doctor.machine.os.access", lambda *_: False)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", variable)
    found = machine(Settings(**_models(HUB, None, offline=setting)))["hub cache"]
    assert found.outcome == outcome
    assert ("HF_HUB_CACHE" in (found.mend or "")) == (outcome == "warn")


async def _nothing(_: Settings) -> AsyncIterator[Finding]:
    none: list[Finding] = []
    for finding in none:
        yield finding


@pytest.mark.parametrize(
    ("down", "outcomes"),
    [({"b:2"}, ["ok", "warn", "ok"]), ({"a:1", "b:2", "c:3"}, ["fail", "fail", "fail"])],
)
async def test_a_bootstrap_server_that_is_down_is_a_failure_where_none_answers(
    down: set[str], outcomes: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def connect(_: KafkaSettings, server: str) -> SimpleNamespace:
        if server in down:
            raise ConnectionFailedError(f"{server} is down.")
        return SimpleNamespace(_versions=dict.fromkeys(range(40), (0, 1)), close=lambda: None)

    async def well(*_: Any) -> Finding:
        return ok("elsewhere", "well")

    monkeypatch.setattr(kafka, "open_connection", connect)
    monkeypatch.setattr(kafka, "_topics", _nothing)
    monkeypatch.setattr(kafka, "_group", well)
    monkeypatch.setattr(kafka, "_producer", well)
    settings = Settings(kafka=KafkaSettings(bootstrap_servers="a:1,b:2,c:3"))
    found = [finding async for finding in kafka.check_kafka(settings)]
    assert [finding.outcome for finding in found if finding.check == "kafka"] == outcomes
    assert any(finding.check == "elsewhere" for finding in found) == (len(down) < 3)


@pytest.mark.parametrize(
    ("pipelines", "groups"),
    [(["traffic"], ["of-traffic"]), (["crypto", "traffic"], ["kbert-worker", "of-traffic"])],
)
async def test_transactions_are_tried_as_each_pipeline_opens_them(
    pipelines: list[PipelineName], groups: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, str]] = []

    class Sink:
        def __init__(self, settings: Settings, pipeline: str) -> None:
            self._asked = settings.source.group_id, pipeline

        async def start(self) -> None:
            asked.append(self._asked)

        async def stop(self) -> None:
            pass

    async def connected(*_: Any) -> Finding:
        return ok("kafka", "answers")

    monkeypatch.setattr(kafka, "TransactionalSink", Sink)
    monkeypatch.setattr(kafka, "_connection", connected)
    monkeypatch.setattr(kafka, "_topics", _nothing)
    monkeypatch.setattr(kafka, "_group", connected)
    settings = Settings(
        delivery="exactly_once", pipelines=pipelines, traffic=TrafficSettings(group_id="of-traffic")
    )
    found = [finding async for finding in kafka.check_kafka(settings)]
    assert asked == list(zip(groups, pipelines, strict=True))
    said = [finding.said for finding in found if finding.check == "transactions"]
    assert all(group in text for group, text in zip(groups, said, strict=True))


async def test_a_user_who_may_not_write_is_told_the_topics_of_each_pipeline(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Admin:
        def __init__(self, **_: Any) -> None:
            pass

        async def start(self) -> None:
            pass

        async def close(self) -> None:
            pass

        async def _send_request(self, _: Any) -> SimpleNamespace:
            return SimpleNamespace(error_code=ClusterAuthorizationFailedError.errno)

    monkeypatch.setattr(kafka, "AIOKafkaAdminClient", Admin)
    settings = Settings(
        topics=TopicSettings(signals="of-crypto", dead_letter="letters"),
        traffic=TrafficSettings(signals="of-traffic"),
    )
    for pipelines, topics in (
        (["traffic"], "of-traffic and letters"),
        (["crypto", "traffic"], "of-crypto and of-traffic and letters"),
    ):
        found = await kafka._producer(settings.model_copy(update={"pipelines": pipelines}))
        assert found.outcome == "fail"
        assert f"Write on {topics}, or" in (found.mend or "")
