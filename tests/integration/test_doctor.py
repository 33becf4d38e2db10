"""``kbert doctor`` finds what would stop a worker, and says what to mend."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr
from redis import Redis

from tests.checkpoints import SMALL, random_state, write_checkpoint
from tests.kafka_io import exactly_once, produce
from tests.pipelines import pipeline_settings
from tests.processes import environment_of
from tests.servers import KafkaServer, Topics
from worker.commands.doctor import examine
from worker.doctor.finding import Finding
from worker.doctor.kafka import check_kafka
from worker.embedded import EmbeddedRedis, free_port
from worker.settings import KafkaSettings, ModelSettings, RedisSettings, ServeSettings, Settings, SinkSettings


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("model") / "small", random_state(SMALL))


@pytest.fixture
async def settings(kafka: KafkaServer, topics: Topics, redis_url: str, checkpoint: Path) -> Settings:
    return await pipeline_settings(
        kafka,
        topics,
        redis=RedisSettings(url=SecretStr(redis_url)),
        model=ModelSettings(ref=str(checkpoint), device="cpu", threads=1),
        sink=SinkSettings(author_key=SecretStr("k" * 32)),
    )


async def findings(settings: Settings) -> dict[str, Finding]:
    return {finding.check: finding async for finding in examine(settings)}


def changed(settings: Settings, section: str, **fields: Any) -> Settings:
    return settings.model_copy(update={section: getattr(settings, section).model_copy(update=fields)})


def doctor(settings: Settings, *arguments: str) -> "subprocess.CompletedProcess[str]":
    env = {name: value for name, value in os.environ.items() if not name.startswith("KBERT_")}
    return subprocess.run(
        [sys.executable, "-m", "worker", "doctor", *arguments],
        env=env | environment_of(settings),
        capture_output=True,
        text=True,
        timeout=170,
        check=False,
    )


async def test_a_healthy_installation_has_no_failure(kafka: KafkaServer, settings: Settings) -> None:
    await produce(kafka.bootstrap_servers, settings.topics.raw, [b"a"], partitions=1)
    done = doctor(settings, "--json")
    found = {finding["check"]: finding for finding in json.loads(done.stdout)}
    assert done.returncode == 0, done.stdout + done.stderr
    assert not [finding for finding in found.values() if finding["outcome"] == "fail"]
    assert {
        "disk", "coins", "author key", "serve", "model crypto", "kafka", "producer",
        f"topic {settings.topics.raw}", f"topic {settings.topics.signals}",
        f"topic {settings.topics.dead_letter}", "redis", "redis rights",
        f"group {settings.source.group_id}", f"read {settings.topics.raw}", "redis version", "redis memory",
        "redis clock", f"group {settings.aggregates.group_id}", f"read {settings.topics.signals}",
    } == set(found)  # fmt: skip
    assert "newest record" in found[f"read {settings.topics.raw}"]["said"]
    assert "torch" in found["model crypto"]["said"]


async def test_what_each_pipeline_reads_is_looked_at(
    kafka: KafkaServer, topics: Topics, settings: Settings
) -> None:
    raw, signals = await topics.make("raw-traffic"), await topics.make("signals-traffic")
    both = changed(settings, "traffic", raw=raw, signals=signals, group_id=f"workers-{raw}")
    both = changed(both, "aggregates", group_id=f"aggregates-{raw}")
    both = changed(both, "narrative", group_id=f"narrative-{raw}")
    await produce(kafka.bootstrap_servers, signals, [b"a"], partitions=1)
    both = both.model_copy(update={"pipelines": ["crypto", "traffic"]})
    found = {finding.check: finding async for finding in check_kafka(both)}
    groups = {
        settings.source.group_id, f"aggregates-{raw}", f"workers-{raw}", f"narrative-{raw}"
    }  # fmt: skip
    assert {check[6:] for check in found if check.startswith("group ")} == groups
    read = {settings.topics.raw, settings.topics.signals, raw, signals}
    assert {check[5:] for check in found if check.startswith("read ")} == read
    assert "newest record" in found[f"read {signals}"].said


async def test_what_is_wrong_is_a_line_each_and_status_1(settings: Settings, tmp_path: Path) -> None:
    broken = changed(settings, "topics", signals="no-such-topic")
    broken = changed(broken, "model", ref=str(tmp_path))
    broken = changed(broken, "serve", host="0.0.0.0")
    broken = changed(broken, "redis", url=SecretStr(f"redis://:hunter2@127.0.0.1:{free_port()}/0"))
    done = doctor(broken)
    assert done.returncode == 1
    lines = done.stdout.splitlines()
    for expected in (
        "fail topic no-such-topic: is not there, or this user may not see it; run kbert topics --create",
        "fail model crypto:",
        "fail serve: serve.host (KBERT_SERVE__HOST) is 0.0.0.0",
        "fail redis: Redis at 127.0.0.1:",
    ):
        assert sum(line.startswith(expected) for line in lines) == 1, (expected, done.stdout)
    assert "hunter2" not in done.stdout + done.stderr


async def test_a_broker_that_is_not_there_is_one_failure(settings: Settings) -> None:
    found = await findings(changed(settings, "kafka", bootstrap_servers=f"127.0.0.1:{free_port()}"))
    assert found["kafka"].outcome == "fail"
    assert "kafka.bootstrap_servers" in found["kafka"].said
    assert not [check for check in found if check.startswith(("topic", "group", "producer"))]
    assert found["redis"].outcome == "ok"  # the next room is looked at all the same


async def test_a_broker_that_cannot_do_what_the_settings_ask(kafka: KafkaServer, settings: Settings) -> None:
    if kafka.is_apache:
        pytest.skip("it can")
    kafka_settings = KafkaSettings(bootstrap_servers=kafka.bootstrap_servers)  # idempotent by default
    found = await findings(settings.model_copy(update={"kafka": kafka_settings}))
    assert found["producer"].outcome == "fail"
    assert "kafka.idempotent_producer=false" in (found["producer"].mend or "")
    found = await findings(exactly_once(settings))
    assert found["transactions"].outcome == "fail"
    assert "delivery=at_least_once" in found["transactions"].said


async def test_a_redis_that_throws_windows_away_is_a_warning(settings: Settings) -> None:
    options = ["--maxmemory", "64mb", "--maxmemory-policy", "allkeys-lru"]
    async with EmbeddedRedis(options=options) as server:
        place = RedisSettings(url=SecretStr(server.url))
        found = await findings(settings.model_copy(update={"redis": place}))
        assert found["redis memory"].outcome == "warn"
        assert "noeviction" in (found["redis memory"].mend or "")
        with Redis.from_url(server.url) as client:
            client.config_set("maxmemory-policy", "noeviction")
        found = await findings(settings.model_copy(update={"redis": place}))
        assert found["redis memory"].outcome == "ok"


async def test_clocks_that_are_ahead_and_keys_that_are_missing_are_warnings(
    kafka: KafkaServer, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    import time

    real = time.time
    monkeypatch.setattr("worker.doctor.redis.time.time", lambda: real() - 60)
    found = await findings(changed(settings, "sink", author_key=None))
    assert (found["redis clock"].outcome, found["author key"].outcome) == ("warn", "warn")
    assert "NTP" in (found["redis clock"].mend or "")


async def test_an_open_door_is_a_failure(settings: Settings) -> None:
    opened = settings.model_copy(update={"serve": ServeSettings(host="192.0.2.1")})
    assert (await findings(opened))["serve"].outcome == "fail"


_DOCTOR_WITH_A_SLOW_MODEL = """
import sys, threading
from concurrent.futures import ThreadPoolExecutor
import worker.doctor.kafka, worker.doctor.model, worker.doctor.redis
from worker.cli import main
from worker.doctor.finding import fail, ok

hangs = threading.Event()

def download(*_):  # as huggingface_hub does it, in threads that the interpreter waits for
    with ThreadPoolExecutor() as pool:
        pool.submit(hangs.wait).result()

async def well(settings):
    yield {outcome}("elsewhere", "looked at")

worker.doctor.model.load_configured = download
worker.doctor.model._SECONDS = 0.1
worker.doctor.kafka.check_kafka = worker.doctor.redis.check_redis = well
sys.argv = ["kbert", "doctor"]
main()
"""


@pytest.mark.parametrize(("outcome", "status"), [("ok", 0), ("fail", 1)])
def test_a_model_that_still_loads_is_a_warning_and_does_not_hold_the_process_up(
    outcome: str, status: int
) -> None:
    env = {name: value for name, value in os.environ.items() if not name.startswith("KBERT_")}
    done = subprocess.run(
        [sys.executable, "-c", _DOCTOR_WITH_A_SLOW_MODEL.format(outcome=outcome)],
        env=env,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == status, done.stdout + done.stderr
    assert "warn model crypto: is still loading or downloading after 0.1 s" in done.stdout
    assert done.stdout.count("elsewhere: looked at") == 2
    assert not done.stderr
