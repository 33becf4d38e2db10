"""A stop while a worker or a server starts ends it at once and with status 0, whatever it waits for."""

import asyncio
import signal
from pathlib import Path

import pytest
from pydantic import SecretStr

from tests.checkpoints import SMALL, random_state, write_checkpoint
from tests.kafka_io import exactly_once
from tests.pipelines import pipeline_settings
from tests.processes import KbertProcess, kbert
from tests.servers import KafkaServer, Topics
from tests.silent_server import silent_server
from tests.waiting import eventually
from worker.embedded import EmbeddedKafka, free_port
from worker.settings import (
    KafkaSettings,
    ModelSettings,
    RedisSettings,
    ServeSettings,
    Settings,
    load_settings,
)


async def _ends(process: KbertProcess, event: str = "worker.stopped_at_start") -> None:
    process.send(signal.SIGTERM)
    status = await asyncio.to_thread(process.wait, 25)  # what waits here waits for 40 s and longer
    said = process.log.read_text()
    assert status == 0, said[-3_000:]
    assert event in said
    assert "Traceback" not in said


async def test_while_the_model_is_on_its_way(kafka: KafkaServer, topics: Topics, tmp_path: Path) -> None:
    settings = await pipeline_settings(kafka, topics, model=ModelSettings(ref="nobody/anything"))
    async with silent_server() as (hub, asked):
        with kbert(
            ["run", "--only", "worker"],
            settings,
            tmp_path / "log",
            HF_ENDPOINT=f"http://{hub}",
            HF_HOME=str(tmp_path / "hub"),
            HF_HUB_ETAG_TIMEOUT="300",
            HF_HUB_DOWNLOAD_TIMEOUT="300",
            HF_HUB_OFFLINE="0",
        ) as process:
            await eventually(lambda: process.says("") and asked.is_set(), timeout=90)
            await _ends(process)


@pytest.mark.parametrize("delivery", ["at_least_once", "exactly_once"])
async def test_while_no_broker_answers(tmp_path: Path, delivery: str) -> None:
    checkpoint = write_checkpoint(tmp_path / "small", random_state(SMALL))
    async with EmbeddedKafka() as embedded:
        kafka = KafkaServer(embedded.bootstrap_servers, is_apache=delivery == "exactly_once")
        settings: Settings = await pipeline_settings(
            kafka, Topics(kafka), model=ModelSettings(ref=str(checkpoint), device="cpu", threads=1)
        )
        if delivery == "exactly_once":
            settings = exactly_once(settings)
        embedded.freeze()
        try:
            with kbert(["run", "--only", "worker"], settings, tmp_path / "log") as process:
                # Said between the model and the brokers.
                await eventually(lambda: process.says("author_key.missing"), timeout=90)
                await _ends(process)
        finally:
            embedded.thaw()


async def test_while_a_server_waits_for_a_broker(redis_url: str, tmp_path: Path) -> None:
    async with silent_server() as (broker, asked):
        settings = load_settings(
            _env_file=None,
            kafka=KafkaSettings(bootstrap_servers=broker),
            redis=RedisSettings(url=SecretStr(redis_url)),
            serve=ServeSettings(port=free_port()),
        )
        with kbert(["serve"], settings, tmp_path / "log") as process:
            await eventually(lambda: process.says("") and asked.is_set(), timeout=90)
            await _ends(process, "serve.stopped_at_start")
