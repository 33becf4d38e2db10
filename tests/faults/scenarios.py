"""One fault each: does it, lets the workers recover, and counts what became of the messages.

``tests.faults.matrix`` runs them all and prints the table; ``test_matrix.py`` runs a shorter cut.
"""

import asyncio
import contextlib
import json
import os
import random
import shlex
import signal
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from time import monotonic
from urllib.parse import urlsplit

from tests.fake_model import POISON, FakeEngine
from tests.faults import load
from tests.faults.aggregates_load import (
    aggregate_settings,
    equals,
    make_value,
    produce_signals,
    recount,
    running_aggregation,
)
from tests.faults.load import ENTRY, WORKER, Tally
from tests.kafka_io import produce
from tests.pipelines import running_pipeline
from tests.processes import KbertProcess, kbert
from tests.proxies import LosingProxy
from tests.servers import KafkaServer, Topics
from tests.waiting import eventually
from worker.embedded import EmbeddedKafka, EmbeddedRedis
from worker.settings import Settings
from worker.sink.admin import wait_until_ready

RESTART = os.environ.get("KBERT_TEST_KAFKA_RESTART")
"""The command that kills the broker of ``KBERT_TEST_KAFKA`` and starts it again."""
ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Row:
    """What a fault did. ``recovery``: seconds from its end to the next outcome, the longest of the rounds."""

    fault: str
    rounds: int
    tally: Tally
    recovery: float | None = None
    note: str = ""


@dataclass
class Field:
    """Where a scenario takes place."""

    kafka: KafkaServer
    checkpoint: Path
    directory: Path
    exactly_once: bool = False
    _started: int = field(default=0)

    @property
    def topics(self) -> Topics:
        """Makes topics on this field's broker."""
        return Topics(self.kafka)

    async def settings(self) -> Settings:
        """Topics and a group of their own."""
        settings = await load.worker_settings(self.kafka, self.topics, self.checkpoint)
        return load.in_transactions(settings) if self.exactly_once else settings

    def worker(
        self, settings: Settings, cwd: Path | None = None, **environment: str
    ) -> contextlib.AbstractContextManager[KbertProcess]:
        """A worker process, killed at the end of the block."""
        self._started += 1
        environment["PYTHONPATH"] = str(ROOT)
        if self.exactly_once and not self.kafka.is_apache:
            environment["FAULT_NEWER_INIT"] = "1"
        log = self.directory / f"{settings.topics.raw}-{self._started}.log"
        return kbert(WORKER, settings, log, module=ENTRY, cwd=cwd, **environment)


Scenario = Callable[[Field, int], Awaitable[Row]]


async def killed(place: Field, rounds: int) -> Row:
    """kill -9 of the only worker at a random moment, and the next one goes on; in three groups at once."""
    chains = min(3, rounds)
    done = await asyncio.gather(
        *(_kill_chain(place, rounds // chains + (n < rounds % chains)) for n in range(chains))
    )
    tally = Tally(*(sum(getattr(t, name) for t, _ in done) for name in Tally.__slots__))
    return Row("worker killed (kill -9)", rounds, tally, max(seconds for _, seconds in done))


async def _kill_chain(place: Field, rounds: int) -> tuple[Tally, float]:
    settings = await place.settings()
    count, recovery, since = 0, 0.0, 0.0
    for number in range(rounds + 1):
        await load.feed(settings, count, 2_000)
        count += 2_000
        before = await load.outcomes(settings)
        with place.worker(settings) as worker:
            if number:
                recovery = max(recovery, await load.recovery(settings, before, since))
            if number == rounds:
                await load.ready(worker)
                await load.all_there(settings, count, timeout=120)
                await load.committed_to_the_end(settings, count)
                await load.ended(worker)
                break
            goal = before + random.randint(1, count - before)

            async def enough(goal: int = goal) -> bool:
                return await load.outcomes(settings) >= goal

            await eventually(enough, timeout=90, interval=0.0)
            worker.send(signal.SIGKILL)
            worker.wait()
            since = monotonic()
    return await load.tally(settings, count), recovery


async def stopped(place: Field, rounds: int) -> Row:
    """SIGSTOP of one of two workers past its session, and SIGCONT when the other has its partitions."""
    settings = await place.settings()
    count, recovery = 4_000, 0.0
    await load.feed(settings, 0, count)
    with place.worker(settings) as first, place.worker(settings) as second:
        await load.ready(first, second)
        for _ in range(rounds):
            before = await load.outcomes(settings)
            first.send(signal.SIGSTOP)
            since = monotonic()
            await load.feed(settings, count, 2_000)
            count += 2_000
            recovery = max(recovery, await load.recovery(settings, before, since))
            await load.all_there(settings, count, timeout=90)  # the other does it all
            first.send(signal.SIGCONT)
            await load.feed(settings, count, 2_000)
            count += 2_000
            await load.all_there(settings, count, timeout=90)
        await load.committed_to_the_end(settings, count)
        await load.ended(first, second)
    return Row("SIGSTOP past the session", rounds, await load.tally(settings, count), recovery)


async def broker_frozen(place: Field, rounds: int, seconds: float = 20.0) -> Row:
    """The broker answers nobody for a while; connections stay open."""
    recovery = 0.0
    async with EmbeddedKafka() as broker:
        own = Field(KafkaServer(broker.bootstrap_servers, is_apache=False), place.checkpoint, place.directory)
        settings = await own.settings()
        count = 0
        with own.worker(settings) as first, own.worker(settings) as second:
            await load.ready(first, second)
            for _ in range(rounds):
                before = await load.outcomes(settings)
                await load.feed(settings, count, 10_000)
                count += 10_000
                broker.freeze()
                await load.pause(seconds)
                broker.thaw()
                since = monotonic()
                await load.feed(settings, count, 2_000)  # the others may be done by the time of the freeze
                count += 2_000
                recovery = max(recovery, await load.recovery(settings, before, since))
                await load.all_there(settings, count, timeout=120)
            await load.committed_to_the_end(settings, count)
            await load.ended(first, second)
        return Row(f"broker frozen {seconds:g} s", rounds, await load.tally(settings, count), recovery)


async def broker_restarted(place: Field, rounds: int) -> Row:
    """The broker killed under load and started again by the command in ``RESTART``, with what it had stored.

    A worker may give up on a broker that is away for long; its supervisor starts another.
    """
    assert RESTART is not None
    settings = await place.settings()
    count, recovery = 0, 0.0
    for _ in range(rounds):
        await load.feed(settings, count, 20_000)
        count += 20_000
        before = await load.outcomes(settings)
        with place.worker(settings):

            async def some(before: int = before) -> bool:
                return await load.outcomes(settings) > before + 500

            await eventually(some, timeout=60, interval=0.0)
            await asyncio.to_thread(subprocess.run, shlex.split(RESTART), check=True)
            await wait_until_ready(settings.kafka.bootstrap_servers, 120)
            since, before = monotonic(), await load.outcomes(settings)
            assert before < count, "all was done before the broker was killed: the row shows nothing"
            with place.worker(settings):
                recovery = max(recovery, await load.recovery(settings, before, since))
                await load.all_there(settings, count, timeout=150)
                await load.committed_to_the_end(settings, count, timeout=60)
    return Row("broker killed, data kept", rounds, await load.tally(settings, count), recovery)


async def rebalances(place: Field, rounds: int) -> Row:
    """Workers that join and leave under load, beside one that stays."""
    settings = await place.settings()
    count, stop = 0, asyncio.Event()

    async def feed() -> None:
        nonlocal count
        while not stop.is_set():
            await load.feed(settings, count, 400)
            count += 400
            await load.pause(0.5)

    with place.worker(settings) as stays:
        await load.ready(stays)
        feeding = asyncio.create_task(feed())
        for _ in range(rounds):
            with place.worker(settings) as guest:
                await eventually(
                    lambda guest=guest: guest.says("partitions.assigned"),  # type: ignore[misc]
                    timeout=60,
                )
                await load.ended(guest)
        stop.set()
        await feeding
        since, before = monotonic(), await load.outcomes(settings)
        await load.all_there(settings, count, timeout=90)
        recovery = monotonic() - since if before < count else 0.0
        await load.committed_to_the_end(settings, count)
        await load.ended(stays)
    return Row("join and leave under load", rounds, await load.tally(settings, count), recovery)


async def terminated(place: Field, rounds: int) -> Row:
    """SIGTERM under full load: the worker drains and ends with status 0."""
    settings = await place.settings()
    count, longest = 0, 0.0
    for _ in range(rounds):
        await load.feed(settings, count, 12_000)
        count += 12_000
        longest = max(longest, await _terminate_under_load(place, settings, twice=False))
    tally = await _finish(place, settings, count)
    limit = settings.source.drain_timeout * 2  # the drain, and the good-bye to the group
    assert longest < limit, f"a stop took {longest:.1f} s"
    return Row("SIGTERM under load", rounds, tally, None, f"longest stop {longest:.1f} s")


async def terminated_twice(place: Field, rounds: int) -> Row:
    """The second SIGTERM ends the worker where it stands."""
    settings = await place.settings()
    count = 0
    for _ in range(rounds):
        await load.feed(settings, count, 12_000)
        count += 12_000
        await _terminate_under_load(place, settings, twice=True)
    return Row("SIGTERM twice", rounds, await _finish(place, settings, count))


async def _terminate_under_load(place: Field, settings: Settings, *, twice: bool) -> float:
    before = await load.outcomes(settings)
    with place.worker(settings) as worker:

        async def busy() -> bool:
            return await load.outcomes(settings) > before

        await eventually(busy, timeout=60, interval=0.0)
        since = monotonic()
        worker.send(signal.SIGTERM)
        if twice:
            await eventually(lambda: not worker.running or worker.says("stop.requested"), interval=0.0)
            worker.send(signal.SIGTERM)
        status = await asyncio.to_thread(worker.wait)
        log = worker.log.read_text(errors="replace")
        assert status in ((0, -signal.SIGTERM) if twice else (0,)), f"status {status}: {log[-3_000:]}"
        return monotonic() - since


async def read_only(place: Field, rounds: int) -> Row:
    """A working directory in which nothing can be written."""
    settings = await place.settings()
    count = 2_000 * rounds
    await load.feed(settings, 0, count)
    with place.worker(settings, cwd=Path("/proc")) as worker:
        await load.all_there(settings, count, timeout=90)
        await load.committed_to_the_end(settings, count)
        await load.ended(worker)
    return Row("read-only working directory", rounds, await load.tally(settings, count))


async def disk_full(place: Field, rounds: int) -> Row:
    """No file takes a byte, the log's neither, and no directory a file."""
    settings = await place.settings()
    count = 2_000 * rounds
    await load.feed(settings, 0, count)
    nowhere = {"TMPDIR": "/proc", "HOME": "/proc", "XDG_CACHE_HOME": "/proc"}
    with place.worker(settings, cwd=Path("/proc"), FAULT_FULL_DISK="1", **nowhere) as worker:
        await load.all_there(settings, count, timeout=90)
        await load.committed_to_the_end(settings, count)
        await load.ended(worker)
        assert not worker.log.stat().st_size, "the disk was not full: the row shows nothing"
    return Row("disk full", rounds, await load.tally(settings, count))


async def clock_jumps(place: Field, rounds: int) -> Row:
    """The worker's wall clock jumps forward an hour and back, in a long batch and under a short watchdog."""
    settings = await place.settings()
    # A batch lasts for three of the watchdog's looks, and the clock jumps in the middle of one.
    source = settings.source.model_copy(update={"stall_limit": 8.0})
    batch = settings.batch.model_copy(update={"max_batch_tokens": 4_096})
    settings = settings.model_copy(update={"source": source, "batch": batch})
    count, recovery, began = 0, 0.0, datetime.now(UTC)
    with place.worker(settings, FAULT_CLOCK_JUMPS="1", FAULT_MESSAGES_PER_SECOND="80") as worker:
        await load.ready(worker)
        for _ in range(rounds):
            await load.feed(settings, count, 400)
            await load.feed(settings, count + 400, 400, ahead=timedelta(minutes=30))
            count += 800
            for jump in (signal.SIGUSR1, signal.SIGUSR2):
                await load.pause(1.5)
                since, before = monotonic(), await load.outcomes(settings)
                worker.send(jump)
                recovery = max(recovery, await load.recovery(settings, before, since))
            await load.committed_to_the_end(settings, count)
        await load.all_there(settings, count)
        await load.ended(worker)
    published, processed = await load.times(settings)
    slack = timedelta(seconds=1)
    # The broker's time stands for published_at, where it is absent and where it lies ahead of it: in the
    # hour that the worker's clock is ahead, half an hour ahead is still too much.
    assert began - slack <= min(published), f"published_at {min(published)} before {began}"
    assert max(published) <= datetime.now(UTC) + slack, f"published_at {max(published)} is to come"
    assert max(processed) - min(processed) > timedelta(minutes=59), "the clock did not jump"
    return Row("clock jumps an hour and back", rounds, await load.tally(settings, count), recovery)


async def poisonous(place: Field, rounds: int) -> Row:
    """One message on which the engine raises, in the middle of many batches."""
    return await _engine(place, rounds, "engine raises on one message", FakeEngine(), poison_every=500)


async def whole_batch(place: Field, rounds: int) -> Row:
    """Batches that fail whole, once, and go when they are split."""
    engine = FakeEngine(fails_at=frozenset(range(3, 3 + 10 * rounds, 10)))
    return await _engine(place, rounds, "engine raises on a batch", engine)


async def out_of_memory(place: Field, rounds: int) -> Row:
    """No batch of more than five messages has room on the device."""
    return await _engine(place, rounds, "engine out of memory", FakeEngine(too_many=6))


async def _engine(
    place: Field, rounds: int, fault: str, engine: FakeEngine, poison_every: int | None = None
) -> Row:
    settings = await place.settings()
    count = 1_000 * rounds
    values = load.values(0, count)
    poisoned = set(range(7, count, poison_every)) if poison_every else set()
    for number in poisoned:
        values[number] = json.dumps({"id": f"m{number}", "text": POISON}).encode()
    await produce(settings.kafka.bootstrap_servers, settings.topics.raw, values, partitions=load.PARTITIONS)
    async with running_pipeline(settings, engine) as (pipeline, _, running):

        async def complete() -> bool:
            if running.done():
                running.result()
            return await load.outcomes(settings) >= count

        await eventually(complete, timeout=60, interval=0.2)
        await load.committed_to_the_end(settings, count)
        assert pipeline.counts.dead_letters == len(poisoned)
    note = f"{len(poisoned)} dead letters" if poisoned else ""
    return Row(fault, rounds, await load.tally(settings, count), None, note)


async def redis_with_data(place: Field, rounds: int) -> Row:
    """Redis killed, and started again with what it had written to its disk."""
    directory = place.directory / "redis"
    redis = EmbeddedRedis(directory=directory, options=("--appendfsync", "everysec"))
    return await _redis_killed(place, rounds, "Redis killed, data kept", redis)


async def redis_without_data(place: Field, rounds: int) -> Row:
    """Redis killed, and started again empty."""
    return await _redis_killed(place, rounds, "Redis killed, data gone", EmbeddedRedis())


async def _redis_killed(place: Field, rounds: int, fault: str, redis: EmbeddedRedis) -> Row:
    now, recovery = datetime.now(UTC), 0.0
    await redis.start()
    try:
        settings = await aggregate_settings(place.kafka, place.topics, redis.url, fault.replace(" ", "-"))
        async with running_aggregation(settings):
            values: list[bytes] = []

            async def more() -> None:
                fresh = [make_value(n, now) for n in range(len(values), len(values) + 1_000)]
                values.extend(fresh)
                await produce_signals(place.kafka, settings, fresh)

            await more()
            await equals(redis.url, recount(values))
            for _ in range(rounds):
                await more()
                redis.kill()
                await more()
                await redis.start()
                since = monotonic()
                await more()
                await equals(redis.url, recount(values))
                recovery = max(recovery, monotonic() - since)
    finally:
        await redis.stop()
    return Row(fault, rounds, Tally(len(values), 0, 0, 0), recovery, "aggregates equal the recount")


async def redis_slow(place: Field, rounds: int) -> Row:
    """Every answer of Redis takes 0.3 s."""
    now = datetime.now(UTC)
    values = [make_value(n, now) for n in range(1_500 * rounds)]
    async with EmbeddedRedis() as redis, LosingProxy(urlsplit(redis.url).port or 0, delay=0.3) as proxy:
        settings = await aggregate_settings(
            place.kafka, place.topics, f"redis://127.0.0.1:{proxy.port}/0", "slow"
        )
        async with running_aggregation(settings):
            await produce_signals(place.kafka, settings, values)
            await equals(redis.url, recount(values))
    return Row(
        "Redis answers after 0.3 s", rounds, Tally(len(values), 0, 0, 0), None, "aggregates equal the recount"
    )


async def _finish(place: Field, settings: Settings, count: int) -> Tally:
    with place.worker(settings) as worker:
        await load.ready(worker)
        await load.all_there(settings, count, timeout=120)
        await load.committed_to_the_end(settings, count)
        await load.ended(worker)
    return await load.tally(settings, count)


@contextlib.asynccontextmanager
async def field_of(
    kafka: KafkaServer, checkpoint: Path, directory: Path, *, exactly_once: bool
) -> AsyncIterator[Field]:
    """A field; transactions of this process's own pipelines work on the embedded broker too."""
    from tests.newer_init import newer_init

    needed = exactly_once and not kafka.is_apache
    with newer_init() if needed else contextlib.nullcontext():
        yield Field(kafka, checkpoint, directory, exactly_once)
