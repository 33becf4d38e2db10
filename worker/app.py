"""The services of one process, started, watched and stopped together."""

import asyncio
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING

import structlog

from worker.collector import calm_collector
from worker.configured_model import load_configured
from worker.errors import KbertError, first_of
from worker.settings import PipelineName, Settings
from worker.stopping import end_by, in_own_thread, unless_stopped
from worker.telemetry.endpoint import expose
from worker.telemetry.health import HEALTH

if TYPE_CHECKING:
    from worker.inference.load import Model
    from worker.inference.thread import EngineThread
    from worker.inference.turns import Turns
    from worker.pipeline import Pipeline
    from worker.sink.producer import Sink
    from worker.source.consumer import KafkaSource
    from worker.tasks import Task

log = structlog.get_logger(__name__)

_ENGINE_SECONDS = 5.0
_BEAT_SECONDS = 1.0

Service = Callable[[Settings, asyncio.Event], Awaitable[None]]


async def run_worker(settings: Settings, stop: asyncio.Event) -> None:
    """Classify the raw topics of ``pipelines`` until ``stop`` is set; their engines take turns."""
    from worker.inference.turns import Turns

    turns = Turns()
    async with asyncio.TaskGroup() as group:
        for name in settings.pipelines:
            group.create_task(_run_pipeline(name, settings.of(name), turns, stop), name=f"pipeline-{name}")


async def _run_pipeline(name: PipelineName, settings: Settings, turns: "Turns", stop: asyncio.Event) -> None:
    async with AsyncExitStack() as stack:
        # A download, a missing topic, a group or broker that does not answer: each may last for minutes.
        pipeline = await unless_stopped(stop, _started(name, settings, turns, stack, stop))
        if pipeline is None:
            log.info("worker.stopped_at_start", pipeline=name)
        else:
            await pipeline.run(stop)


async def _started(
    name: PipelineName, settings: Settings, turns: "Turns", stack: AsyncExitStack, stop: asyncio.Event
) -> "Pipeline":
    """A pipeline with its model, connected; ``stack`` ends what it needs."""
    from worker.inference.thread import EngineThread
    from worker.inference.turns import EngineInTurn
    from worker.pipeline import Pipeline, batch_bounds

    report = stack.enter_context(HEALTH.part(f"worker-{name}"))
    report("the model is loading")
    load = partial(load_configured, settings.model, name)
    model = await in_own_thread(load, f"kbert-model-{name}", stop)
    batch_bounds(settings.batch, model)  # a setting that does not suit it is told before anything connects
    if name == "crypto" and settings.sink.author_key is None:
        log.warning(
            "author_key.missing",
            mend="set sink.author_key: author hashes can be guessed from known names",
        )
    engine = EngineThread(EngineInTurn(model.engine, turns), name=f"kbert-engine-{name}")
    stack.push_async_callback(_ended, engine)
    report("joining the consumer group")
    source, sink = await stack.enter_async_context(connected(settings, name))
    calm_collector()
    log.info("worker.ready", pipeline=name, **model.info.model_dump(), engine=model.engine.description)
    return Pipeline(
        settings,
        source=source,
        sink=sink,
        model=model,
        engine=engine,
        task=task_for(name, model, settings),
        name=name,
    )


def task_for(name: PipelineName, model: "Model", settings: Settings) -> "Task":
    """The task of a pipeline with its model."""
    from worker.coins import CoinTagger, load_catalogue
    from worker.tasks import CryptoTask, TrafficTask

    if name == "traffic":
        return TrafficTask(model.info, model.tokeniser.separator)
    return CryptoTask(model.info, CoinTagger(load_catalogue(settings.coins.user_file)), settings.sink)


async def _ended(engine: "EngineThread") -> None:
    """A daemon thread in native code takes the process down with SIGABRT when the interpreter ends."""
    engine.close()
    if not await asyncio.to_thread(engine.join, _ENGINE_SECONDS):
        log.warning("engine.abandoned", seconds=_ENGINE_SECONDS)


@asynccontextmanager
async def connected(
    settings: Settings, pipeline: PipelineName = "crypto"
) -> "AsyncIterator[tuple[KafkaSource, Sink]]":
    """Both ends of a pipeline, as ``delivery`` has them."""
    from worker.sink.outputs import outputs_of
    from worker.sink.producer import KafkaSink
    from worker.sink.transactions import TransactionalSink
    from worker.source.consumer import KafkaSource

    sink: KafkaSink | TransactionalSink
    transactions: TransactionalSink | None = None
    if settings.delivery == "exactly_once":
        sink = transactions = TransactionalSink(settings, pipeline)
    else:
        sink = KafkaSink(settings.kafka, settings.sink)
    async with AsyncExitStack() as stack:
        await sink.start(*outputs_of(settings, pipeline))
        stack.push_async_callback(sink.stop)
        source = KafkaSource(settings.topics.raw, settings.kafka, settings.source, transactions, pipeline)
        await source.start()
        stack.push_async_callback(source.stop)
        yield source, sink


async def run_aggregates(settings: Settings, stop: asyncio.Event) -> None:
    """Apply the signals of ``pipelines`` to Redis until ``stop`` is set."""
    from worker.aggregation import Aggregation
    from worker.narration import Narration

    async with AsyncExitStack() as stack, asyncio.TaskGroup() as group:
        for pipeline, projection in (("crypto", Aggregation), ("traffic", Narration)):
            if pipeline in settings.pipelines:
                entering = stack.enter_async_context(projection(settings))
                started = await unless_stopped(stop, entering)
                if started is not None:
                    group.create_task(started.run(stop))


async def run_serve(settings: Settings, stop: asyncio.Event) -> None:
    """Serve the API and the page until ``stop`` is set."""
    try:
        from worker.serve.server import run_serve as serve
    except ImportError as error:
        raise KbertError(f"The server needs {error.name}: pip install 'kbert-stream[serve]'.") from error

    await serve(settings, stop)


SERVICES: dict[str, Service] = {"worker": run_worker, "aggregates": run_aggregates, "serve": run_serve}


async def run_services(settings: Settings, names: list[str], stop: asyncio.Event) -> None:
    """Run services side by side; the first failure stops all of them and is raised."""
    async with observed(settings):
        try:
            async with asyncio.TaskGroup() as group:
                for name in names:
                    group.create_task(_watched(name, settings, stop), name=name)
        except* KbertError as errors:
            raise first_of(errors) from errors


@asynccontextmanager
async def observed(settings: Settings) -> AsyncIterator[None]:
    """Metrics and probes at ``metrics.port``, where it is set, for as long as the block lasts.

    Raises:
        ConfigurationError: nothing can listen there, or others could read there without a token.
    """
    exposed = None
    if settings.metrics.port is not None:
        exposed = expose(settings.metrics.host, settings.metrics.port, settings.metrics.token)
    beating = asyncio.create_task(_beat())
    try:
        yield
    finally:
        beating.cancel()
        if exposed is not None:
            await asyncio.to_thread(exposed.shutdown)
            exposed.server_close()


async def _beat() -> None:
    while True:
        HEALTH.beat()
        await asyncio.sleep(_BEAT_SECONDS)


async def _watched(name: str, settings: Settings, stop: asyncio.Event) -> None:
    await SERVICES[name](settings, stop)
    if not stop.is_set():
        raise KbertError(f"The service {name} ended by itself.")


@asynccontextmanager
async def stop_on_signals() -> AsyncIterator[asyncio.Event]:
    """An event that SIGTERM or SIGINT sets; the second signal ends the process at once."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()

    def received(number: signal.Signals) -> None:
        if stop.is_set():
            log.warning("stop.forced", signal=number.name)
            end_by(number)
        log.info("stop.requested", signal=number.name)
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, received, number)
    try:
        yield stop
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)
