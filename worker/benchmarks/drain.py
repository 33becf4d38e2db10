"""One pipeline in this process, until so many outcomes are acknowledged."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from time import perf_counter, process_time
from typing import Any

from worker.batching import DynamicBatcher
from worker.benchmarks.resources import cpu_seconds
from worker.inference.classifier import Classifier
from worker.inference.thread import EngineThread
from worker.pipeline import Counts, Pipeline
from worker.settings import Settings
from worker.sink.producer import KafkaSink
from worker.source.consumer import KafkaSource
from worker.tasks import Task


class _Watched(Counts):
    """Counts that wake whoever waits for them; to look every few milliseconds cost 15 ms a second."""

    def __init__(self) -> None:
        self.changed = asyncio.Event()
        super().__init__()

    def __setattr__(self, name: str, value: object) -> None:
        super().__setattr__(name, value)
        self.changed.set()


class _Mark:
    def __init__(self, broker: int | None) -> None:
        self.wall = perf_counter()
        self.cpu = process_time()
        self.broker = 0.0 if broker is None else cpu_seconds(broker)


@dataclass(frozen=True)
class Drained:
    """How long it took."""

    messages: int
    seconds: float
    """From the first poll that brought records to the last acknowledged outcome."""
    cpu_seconds: float
    """Of this process meanwhile, all threads."""
    broker_cpu_seconds: float

    @property
    def per_second(self) -> float:
        """Messages/s."""
        return self.messages / self.seconds


async def drain(
    settings: Settings,
    model: Classifier,
    task: Task,
    messages: int,
    *,
    broker: int | None = None,
    look: Callable[[int], None] = lambda _: None,
    make_batcher: Callable[[int, int, float], DynamicBatcher[Any]] = DynamicBatcher,
) -> Drained:
    """Classify ``messages`` records that lie in the raw topic.

    Args:
        broker: Process id of the broker, whose CPU is counted too.
        look: Called with the outcomes so far, whenever they change.
        make_batcher: Another rule of batching than ours.

    Raises:
        KbertError: the pipeline ended before them.
    """
    sink = KafkaSink(settings.kafka, settings.sink)
    await sink.start()
    engine = EngineThread(model.engine)
    source = KafkaSource(settings.topics.raw, settings.kafka, settings.source)
    pipeline = Pipeline(
        settings,
        source=source,
        sink=sink,
        model=model,
        engine=engine,
        task=task,
        make_batcher=make_batcher,
    )
    pipeline.counts = counts = _Watched()
    stop = asyncio.Event()
    await source.start()
    start: _Mark | None = None
    running = asyncio.create_task(pipeline.run(stop))
    running.add_done_callback(lambda _: counts.changed.set())
    try:
        while (done := counts.signals + counts.dead_letters) < messages:
            look(done)
            if running.done():
                running.result()
            if counts.records and start is None:
                start = _Mark(broker)
            counts.changed.clear()
            await counts.changed.wait()
        end = _Mark(broker)
        start = start or end
        look(done)
    finally:
        stop.set()
        await asyncio.gather(running, return_exceptions=True)
        await source.stop()
        await sink.stop()
        engine.close()
    return Drained(messages, end.wall - start.wall, end.cpu - start.cpu, end.broker - start.broker)
