"""A pipeline in this process, with an engine that a test can slow, poison and break."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from tests.fake_model import FakeEngine, FakeModel
from tests.kafka_io import settings_for
from tests.servers import KafkaServer, Topics
from tests.waiting import eventually
from worker.app import connected
from worker.coins import CoinTagger, load_catalogue
from worker.inference.classifier import Classifier
from worker.inference.thread import EngineThread
from worker.pipeline import Pipeline
from worker.settings import Settings, SourceSettings
from worker.tasks import CryptoTask

TAGGER = CoinTagger(load_catalogue())


async def pipeline_settings(
    kafka: KafkaServer, topics: Topics, partitions: int = 2, **sections: Any
) -> Settings:
    raw = await topics.make("raw", partitions)
    sections.setdefault(
        "source",
        SourceSettings(
            group_id=f"workers-{raw}", session_timeout=6.0, commit_interval=0.2, drain_timeout=5.0
        ),
    )
    return settings_for(
        kafka.bootstrap_servers,
        idempotence=kafka.idempotence,
        raw=raw,
        signals=await topics.make("signals", partitions),
        dead_letter=await topics.make("dead"),
        **sections,
    )


@asynccontextmanager
async def running_pipeline(
    settings: Settings, engine: FakeEngine | Classifier
) -> AsyncIterator[tuple[Pipeline, asyncio.Event, "asyncio.Task[None]"]]:
    """``engine``: one behind the plain model of tests, or a whole classifier."""
    model = FakeModel(engine) if isinstance(engine, FakeEngine) else engine
    thread = EngineThread(model.engine)
    stop = asyncio.Event()
    async with connected(settings) as (source, sink):
        task = CryptoTask(model.info, TAGGER, settings.sink)
        pipeline = Pipeline(settings, source=source, sink=sink, model=model, engine=thread, task=task)
        running = asyncio.create_task(pipeline.run(stop))
        try:
            yield pipeline, stop, running
        finally:
            stop.set()
            await asyncio.gather(running, return_exceptions=True)
    thread.close()


async def outcomes(
    pipeline: Pipeline, running: "asyncio.Task[None]", count: int, timeout: float = 40.0
) -> None:
    def finished() -> bool:
        if running.done():
            running.result()
        return pipeline.counts.signals + pipeline.counts.dead_letters >= count

    await eventually(finished, timeout=timeout, what=f"{count} outcomes")
