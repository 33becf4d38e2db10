"""A worker that does not work says so to its probes, and ends where a new one would be better."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydantic import SecretStr

from tests.checkpoints import SMALL, random_state, write_checkpoint
from tests.fake_model import FakeEngine
from tests.kafka_io import produce
from tests.pipelines import pipeline_settings, running_pipeline
from tests.processes import kbert
from tests.servers import KafkaServer, Topics
from tests.serving import serve_settings, serving
from tests.waiting import eventually
from worker.embedded import EmbeddedKafka, EmbeddedRedis, free_port
from worker.inference.errors import EngineStopped
from worker.pipeline import StageEndedError
from worker.settings import MetricsSettings, ModelSettings, RedisSettings, Settings


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("model") / "small", random_state(SMALL))


def with_model(settings: Settings, checkpoint: Path, stall_limit: float = 180.0) -> Settings:
    return settings.model_copy(
        update={
            "model": ModelSettings(ref=str(checkpoint), device="cpu", threads=1),
            "metrics": MetricsSettings(port=free_port()),
            "source": settings.source.model_copy(update={"stall_limit": stall_limit}),
        }
    )


def probe(settings: Settings, path: str = "/readyz") -> Callable[[], "asyncio.Future[tuple[int, Any]]"]:
    """Asks a process; status 0 where nothing listens yet."""

    def ask() -> tuple[int, Any]:
        try:
            answer = httpx.get(f"http://127.0.0.1:{settings.metrics.port}{path}", timeout=5)
        except httpx.TransportError:
            return 0, {"parts": {}}
        return answer.status_code, answer.json()

    return lambda: asyncio.ensure_future(asyncio.to_thread(ask))


async def test_not_ready_while_kafka_or_redis_is_silent_and_an_end_after_the_limit(
    checkpoint: Path, tmp_path: Path
) -> None:
    async with EmbeddedKafka() as embedded, EmbeddedRedis() as redis:
        kafka = KafkaServer(embedded.bootstrap_servers, is_apache=False)
        settings = await pipeline_settings(
            kafka, Topics(kafka), redis=RedisSettings(url=SecretStr(redis.url))
        )
        settings = with_model(settings, checkpoint, stall_limit=12.0)
        ask = probe(settings)
        with kbert(["run"], settings, tmp_path / "log") as process:

            async def becomes(status: int, part: str, sentence: str) -> None:
                async def so() -> bool:
                    found, body = await ask()
                    assert process.running, process.log.read_text()[-2_000:]
                    return found == status and sentence in body["parts"].get(part, "")

                await eventually(so, timeout=60, what=f"{part}: {sentence}")

            await becomes(200, "worker-crypto", "ok")
            await becomes(200, "aggregates", "ok")
            redis.freeze()
            await becomes(503, "aggregates", "Redis does not answer")
            redis.thaw()
            await becomes(200, "aggregates", "ok")
            embedded.freeze()
            await becomes(503, "worker-crypto", "Kafka does not answer")
            embedded.thaw()
            await becomes(200, "worker-crypto", "ok")
            assert (await probe(settings, "/healthz")())[0] == 200
            embedded.freeze()
            try:
                assert await asyncio.to_thread(process.wait, 90) == 1
            finally:
                embedded.thaw()
            assert "kbert: Nothing has moved for" in process.log.read_text()


@pytest.mark.parametrize(
    ("dying", "sentence"),
    [
        ("engine", "kbert: The engine thread died of SystemExit"),
        ("task", "kbert: The task commit of the crypto"),
    ],
)
async def test_a_process_whose_engine_or_task_dies_ends_at_once(
    kafka: KafkaServer, topics: Topics, checkpoint: Path, tmp_path: Path, *, dying: str, sentence: str
) -> None:
    settings = with_model(await pipeline_settings(kafka, topics), checkpoint)  # the limit is three minutes
    await produce(kafka.bootstrap_servers, settings.topics.raw, [b"a"])
    arguments = ["run", "--only", "worker"]
    with kbert(arguments, settings, tmp_path / "log", module="tests.dying_worker", DYING=dying) as process:
        assert await asyncio.to_thread(process.wait, 60) == 1
        assert sentence in process.log.read_text()


async def test_an_engine_that_dies_while_nothing_is_to_do_is_seen(kafka: KafkaServer, topics: Topics) -> None:
    settings = await pipeline_settings(kafka, topics)
    async with running_pipeline(settings, FakeEngine()) as (pipeline, _, running):
        await eventually(lambda: pipeline._source.joined)
        pipeline._engine.close()
        with pytest.raises(BaseExceptionGroup) as failed:
            await asyncio.wait_for(running, 30)
    assert failed.group_contains(EngineStopped)


@pytest.mark.parametrize("name", ["intake", "infer", "publish", "acknowledge", "commit", "report", "watch"])
async def test_no_task_of_a_pipeline_ends_alone(kafka: KafkaServer, topics: Topics, name: str) -> None:
    settings = await pipeline_settings(kafka, topics)
    async with running_pipeline(settings, FakeEngine()) as (pipeline, _, running):
        await eventually(
            lambda: pipeline._source.joined and name in {t.get_name() for t in asyncio.all_tasks()}
        )
        next(task for task in asyncio.all_tasks() if task.get_name() == name).cancel()
        with pytest.raises(BaseExceptionGroup) as failed:
            await asyncio.wait_for(running, 30)
    assert failed.group_contains(StageEndedError, match=f"The task {name} of")


async def test_a_server_is_not_ready_while_kafka_is_silent(redis_url: str, redis_prefix: str) -> None:
    async with EmbeddedKafka() as embedded:
        kafka = KafkaServer(embedded.bootstrap_servers, is_apache=False)
        settings = await serve_settings(kafka, Topics(kafka), redis_url, redis_prefix)
        async with serving(settings, "serve") as address, httpx.AsyncClient(timeout=20) as http:

            async def status() -> int:
                return (await http.get(f"{address}/readyz")).status_code

            assert await status() == 200
            embedded.freeze()
            try:

                async def lost() -> bool:
                    return await status() == 503

                await eventually(lost, what="not ready")
                assert (await http.get(f"{address}/healthz")).status_code == 200
            finally:
                embedded.thaw()

            async def back() -> bool:
                return await status() == 200

            await eventually(back, what="ready again")
