"""``kbert bench latency``: from planned arrival to acknowledged signal, for three rules of batching."""

import asyncio
import os
import statistics
import sys
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from time import monotonic, monotonic_ns, perf_counter
from typing import Any, Final, Literal

from schemas.signals import ModelInfo
from worker.batching import DynamicBatcher
from worker.benchmarks.common_rules import SIZE, TIMER, FixedSizeBatcher, TimerBatcher
from worker.benchmarks.drain import drain
from worker.benchmarks.engine import BERT_BASE, Report, chosen_engine, random_state
from worker.benchmarks.load_generator import Load
from worker.benchmarks.machine import describe_machine
from worker.benchmarks.raw_topic import answered_soon, fill, on_broker, payloads, with_own_topics
from worker.coins import CoinTagger, load_catalogue
from worker.embedded import EmbeddedKafka
from worker.errors import KbertError
from worker.inference.classifier import Classifier
from worker.inference.devices import calm_openmp, choose_device, choose_threads
from worker.inference.load import load_model
from worker.inference.thread import EngineThread
from worker.inference.tokenising import EncodedText
from worker.pipeline import Pipeline
from worker.settings import Settings
from worker.sink.producer import KafkaSink, OutRecord
from worker.sink.topics import create_topics, delete_topics
from worker.source.consumer import KafkaSource, Record
from worker.tasks import CryptoTask

LOADS: Final = (0.1, 0.5, 0.8, 0.95)
_ROOT: Final = Path(__file__).parents[2]
_WARM_UP: Final = 200
_OVERLOAD: Final = 1.25
"""Times what a rule does of a backlog: more than it can take beside the generator."""
_PATIENCE: Final = 120.0
_INFO: Final = ModelInfo(name="bench", revision="random weights")

Milliseconds = dict[str, float]
Rules = dict[str, Callable[[int, int, float], DynamicBatcher[Any]]]


def rules_of(timer: float) -> Rules:
    """Ours, and the two common rules with a timer of so many seconds."""
    ms = f"{timer * 1000:g} ms"
    return {
        "ours": DynamicBatcher,
        f"{SIZE} messages or {ms}": partial(FixedSizeBatcher, timer=timer),
        f"every {ms}": partial(TimerBatcher, timer=timer),
    }


async def bench_latency(
    settings: Settings,
    *,
    size: Literal["bundled", "base"] = "bundled",
    seconds: float = 8.0,
    repeats: int = 3,
    loads: Sequence[float] = LOADS,
    timer: float = TIMER,
    own_kafka: bool = False,
    report: Report | None = None,
) -> dict[str, Any]:
    """Measure on a broker, the generator in a process of its own.

    Args:
        settings: As the worker has them.
        size: The bundled model, or random weights of BERT-base size.
        seconds: Of load a point.
        repeats: Interleaved repeats; medians are given.
        loads: Shares of the capacity, which is measured first.
        timer: Seconds that the common rules wait.
        own_kafka: On the Kafka of the settings, in topics and groups named ``kbert-bench-…``, the topics
            deleted in the end; else on the embedded broker.
        report: Called with a line for a person before each measurement.

    Returns:
        ``capacity`` messages/s by rule while more arrive than it can take, and ``backlog`` messages/s of
        those that lie there, with no generator beside; ``service_ms`` of one message and of one full batch
        (engine alone); ``broker_ms`` of a consumer that only passes messages on, at the lowest load;
        ``loads``: for each share of ours' capacity its rate and by rule p50, p95, p99 (ms) from planned
        arrival to acknowledged signal; ``goals``: limits on p99, and at each load whether ours is below that
        of both rules.
    """
    calm_openmp()
    tell = report or (lambda _: None)
    model, threads = await asyncio.to_thread(_model, settings, size)
    task = CryptoTask(model.info, CoinTagger(load_catalogue()), settings.sink)
    service = await asyncio.to_thread(_service_ms, model)
    found: dict[tuple[float, str], list[Milliseconds]] = {}
    rules = rules_of(timer)
    drained: dict[str, list[float]] = {rule: [] for rule in rules}
    sustained: dict[str, list[float]] = {rule: [] for rule in rules}
    echoed: list[Milliseconds] = []
    async with _broker(settings, own=own_kafka) as bench:
        backlog = bench.topics()
        count = max(_WARM_UP, int(3_000 / service["full_batch"] * service["messages_of_a_full_batch"]))
        await fill(backlog, payloads(count))
        for repeat in range(repeats):
            for rule, make in _in_turn(rules, repeat):
                tell(f"capacity, repeat {repeat + 1} of {repeats}: {rule}")
                mine = bench.topics(raw=backlog.topics.raw)
                await create_topics(mine)
                done = await drain(mine, model, task, count, make_batcher=make)
                drained[rule].append(done.per_second)
                through = _pipeline(model, task, make)
                seen = await _under_load(bench, through, _OVERLOAD * done.per_second, seconds, repeat)
                sustained[rule].append(seen.sustained())
        capacity = statistics.median(sustained["ours"])
        for repeat in range(repeats):
            tell(f"the broker alone, repeat {repeat + 1} of {repeats}")
            echoed.append(await _broker_alone(bench, loads[0] * capacity, seconds, repeat))
            for load in loads:
                for rule, make in _in_turn(rules, repeat):
                    tell(f"load {load:.0%}, repeat {repeat + 1} of {repeats}: {rule}")
                    through = _pipeline(model, task, make)
                    seen = await _under_load(bench, through, load * capacity, seconds, repeat)
                    found.setdefault((load, rule), []).append(_quantiles(seen.ms))
    points = [
        {
            "load": load,
            "messages_per_s": round(load * capacity, 1),
            "ms": {rule: _medians(found[load, rule]) for rule in rules},
        }
        for load in loads
    ]
    broker = _medians(echoed)
    return {
        "broker": "own" if own_kafka else "embedded",
        "engine": model.engine.description,
        "model": model.info.name if size == "bundled" else "BERT-base size, random weights",
        "capacity": {rule: round(statistics.median(rates), 1) for rule, rates in sustained.items()},
        "backlog": {rule: round(statistics.median(rates), 1) for rule, rates in drained.items()},
        "service_ms": service,
        "broker_ms": broker,
        "loads": points,
        "goals": goals(points, service, broker),
        "seconds": seconds,
        "repeats": repeats,
        "machine": describe_machine(choose_device(settings.model.device), threads),
    }


def _in_turn(rules: Rules, repeat: int) -> list[tuple[str, Callable[..., DynamicBatcher[Any]]]]:
    """The rules, another one first in each repeat: the machine may be busier at the beginning."""
    listed = list(rules.items())
    first = repeat % len(listed)
    return listed[first:] + listed[:first]


def goals(points: list[dict[str, Any]], service: Milliseconds, broker: Milliseconds) -> dict[str, Any]:
    """Limits on p99, with the broker's own share named, since no batcher can mend that; then both rules'."""
    limits = {0.8: 4 * service["full_batch"], 0.1: 1.5 * service["one_message"] + 10}
    limited = {
        f"p99 at {point['load']:.0%}": {
            "limit_ms": round(limits[point["load"]], 1),
            "ours_ms": point["ms"]["ours"]["p99"],
            "broker_p99_ms": broker["p99"],
        }
        for point in points
        if point["load"] in limits
    }
    return limited | {
        f"p99 below both rules at {point['load']:.0%}": all(
            point["ms"]["ours"]["p99"] < ms["p99"] for rule, ms in point["ms"].items() if rule != "ours"
        )
        for point in points
    }


def _model(settings: Settings, size: Literal["bundled", "base"]) -> tuple[Classifier, int]:
    device, threads = choose_device(settings.model.device), choose_threads(settings.model.threads)
    bundled = load_model(
        precision=settings.model.precision,
        device=settings.model.device,
        threads=threads,
        cuda_graphs=settings.model.cuda_graphs,
    )
    if size == "bundled":
        return bundled, threads
    from worker.benchmarks.pipeline import BenchClassifier

    engine, _ = chosen_engine(
        random_state(BERT_BASE),
        BERT_BASE,
        settings.model.precision,
        device,
        threads,
        cuda_graphs=settings.model.cuda_graphs,
    )
    return BenchClassifier(bundled.tokeniser, engine), threads


def _service_ms(model: Classifier) -> Milliseconds:
    """Engine time of one message and of one full batch of sample chatter."""
    texts = model.tokeniser.encode(_texts(4_000))
    batch: list[EncodedText] = []
    tokens = 0
    for text in texts:
        if tokens + len(text) > model.default_batch_tokens:
            break
        batch.append(text)
        tokens += len(text)
    middling = sorted(texts, key=len)[len(texts) // 2]
    return {
        "one_message": round(_median_ms(lambda: model.engine.infer([middling]), 50), 2),
        "full_batch": round(_median_ms(lambda: model.engine.infer(batch), 7), 2),
        "messages_of_a_full_batch": len(batch),
        "tokens_of_a_full_batch": tokens,
    }


def _texts(count: int) -> list[str]:
    import orjson

    rows = [orjson.loads(value) for value in payloads(count)]
    return [row.get("text") or row["title"] for row in rows]


def _median_ms(work: Callable[[], object], times: int) -> float:
    taken = []
    for _ in range(times):
        start = perf_counter()
        work()
        taken.append((perf_counter() - start) * 1000)
    return statistics.median(taken[1:])


class _TimedSource(KafkaSource):
    """Notes for each finished record when its arrival was planned, and when it was finished."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings.topics.raw, settings.kafka, settings.source)
        self.finished = 0
        self.planned: list[int] = []
        self.ms: list[float] = []
        self._finishes: list[tuple[int, int]] = []

    def finish(self, records: Iterable[Record]) -> None:
        now = monotonic_ns()
        done = list(records)
        super().finish(done)
        self.finished += len(done)
        planned = [int(record.key) for record in done if record.key]
        self.planned += planned
        self.ms += [(now - arrival) / 1e6 for arrival in planned]
        self._finishes.append((now, len(planned)))

    def sustained(self) -> float:
        """Messages/s that were finished while the last two thirds of the load arrived.

        What a backlog is drained at cannot be had beside a generator that needs the same cores: of that, 80 %
        were more than two cores of a Xeon could do, and the latency grew for as long as one measured.
        """
        return per_second(self._finishes, min(self.planned), max(self.planned))


@dataclass
class _Broker:
    """Where the benchmark runs, and the topics that it made there."""

    settings: Settings
    address: str | None
    """As the load generator takes it."""
    made: list[Settings] = field(default_factory=list)

    def topics(self, raw: str | None = None) -> Settings:
        """The settings with topics that nobody else uses."""
        self.made.append(with_own_topics(self.settings, raw=raw))
        return self.made[-1]


@asynccontextmanager
async def _broker(settings: Settings, *, own: bool) -> AsyncIterator[_Broker]:
    if not own:
        async with EmbeddedKafka() as kafka:
            local = answered_soon(on_broker(settings, kafka.bootstrap_servers))
            yield _Broker(local, kafka.bootstrap_servers)
        return
    # The parts are put together here, without transactions.
    found = _Broker(settings.model_copy(update={"delivery": "at_least_once"}), None)
    try:
        yield found
    finally:
        for made in found.made:
            await delete_topics(made)


Through = Callable[[Settings, _TimedSource, KafkaSink, asyncio.Event], Any]


def _pipeline(model: Classifier, task: CryptoTask, make: Callable[..., DynamicBatcher[Any]]) -> Through:
    async def through(settings: Settings, source: _TimedSource, sink: KafkaSink, stop: asyncio.Event) -> None:
        engine = EngineThread(model.engine)
        try:
            await Pipeline(
                settings, source=source, sink=sink, model=model, engine=engine, task=task, make_batcher=make
            ).run(stop)
        finally:
            engine.close()

    return through


async def _echo(settings: Settings, source: _TimedSource, sink: KafkaSink, stop: asyncio.Event) -> None:
    """Pass on what comes, at once: what is left is the broker's time and both clients'."""
    while not stop.is_set():
        if records := await source.poll(settings.source.max_poll_records):
            delivery = await sink.send(
                [OutRecord(settings.topics.signals, None, r.value or b"") for r in records]
            )
            await delivery.acknowledged()
            source.finish(records)


async def _broker_alone(bench: _Broker, rate: float, seconds: float, seed: int) -> Milliseconds:
    return _quantiles((await _under_load(bench, _echo, rate, seconds, seed)).ms)


async def _under_load(
    bench: _Broker, through: Through, rate: float, seconds: float, seed: int
) -> _TimedSource:
    mine = bench.topics()
    await create_topics(mine)
    count = max(100, int(rate * seconds))
    source, sink, stop = _TimedSource(mine), KafkaSink(mine.kafka, mine.sink), asyncio.Event()
    await fill(mine, payloads(_WARM_UP))
    await sink.start()
    await source.start()
    running = asyncio.create_task(through(mine, source, sink, stop))
    try:
        await _finished(source, running, _WARM_UP, _PATIENCE)
        load = Load(bench.address, mine.topics.raw, rate, count, seed)
        async with _generator(load):
            await _finished(source, running, _WARM_UP + count, count / rate + _PATIENCE)
    finally:
        stop.set()
        await asyncio.gather(running, return_exceptions=True)
        await source.stop()
        await sink.stop()
    return source


def per_second(finishes: Sequence[tuple[int, int]], start: int, end: int) -> float:
    """Messages/s of ``finishes`` (ns, messages) in the last two thirds from ``start`` to ``end`` (ns)."""
    inside = [(at, count) for at, count in finishes if start + (end - start) / 3 <= at <= end and count]
    if len(inside) < 2:
        raise KbertError("Fewer than two batches were finished under load: raise --seconds.")
    (first, _), *later = inside
    return sum(count for _, count in later) / (later[-1][0] - first) * 1e9


async def _finished(source: _TimedSource, running: "asyncio.Task[None]", count: int, within: float) -> None:
    deadline = monotonic() + within
    while source.finished < count:
        if running.done():
            running.result()
        if monotonic() > deadline:
            raise KbertError(f"Only {source.finished} of {count} messages were finished in {within:g} s.")
        await asyncio.sleep(0.02)


@asynccontextmanager
async def _generator(load: Load) -> AsyncIterator[None]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "worker.benchmarks.load_generator", load.to_argument()),
        # Not by its working directory: that is where the settings may lie.
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(_ROOT), os.environ.get("PYTHONPATH", "")])},
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        yield
        _, err = await process.communicate()
        if process.returncode:
            raise KbertError(f"The load generator failed: {err.decode(errors='replace')[-500:]}")
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


def _quantiles(ms: list[float]) -> Milliseconds:
    cuts = statistics.quantiles(ms, n=100, method="inclusive")
    return {"p50": cuts[49], "p95": cuts[94], "p99": cuts[98]}


def _medians(runs: list[Milliseconds]) -> Milliseconds:
    return {name: round(statistics.median(run[name] for run in runs), 1) for name in runs[0]}
