"""Worker processes under load, and what has to be true afterwards."""

import asyncio
import json
import signal
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from time import monotonic

from tests.faults.aggregates_load import equal_a_recount
from tests.kafka_io import committed, exactly_once, ids, produce, read_topic, settings_for
from tests.processes import KbertProcess
from tests.servers import KafkaServer, Topics
from tests.waiting import eventually
from worker.settings import BatchSettings, ModelSettings, Settings, SinkSettings, SourceSettings
from worker.source.counting import TopicCounter

PARTITIONS = 4
WORKER = ["run", "--only", "worker"]
ENTRY = "tests.faults.worker_entry"


@dataclass(frozen=True, slots=True)
class Tally:
    """What became of a number of raw messages."""

    messages: int
    lost: int
    repeated: int
    unfinished_committed: int
    """Messages below a committed offset that have no outcome."""


async def worker_settings(kafka: KafkaServer, topics: Topics, checkpoint: Path) -> Settings:
    """Topics and a group of their own, and a model that costs little."""
    raw = await topics.make("raw", PARTITIONS)
    return settings_for(
        kafka.bootstrap_servers,
        idempotence=kafka.idempotence,
        raw=raw,
        signals=await topics.make("signals", 2),
        dead_letter=await topics.make("dead"),
        model=ModelSettings(ref=str(checkpoint), threads=1, precision="fp32"),
        source=SourceSettings(
            group_id=f"workers-{raw}", session_timeout=6.0, commit_interval=0.2, drain_timeout=10.0
        ),
        batch=BatchSettings(max_batch_tokens=256, max_queue_delay=0.2),
    )


def in_transactions(settings: Settings) -> Settings:
    """The same workers in exactly-once mode."""
    return exactly_once(settings.model_copy(update={"sink": SinkSettings(request_timeout=15.0)}))


def values(start: int, count: int, ahead: timedelta | None = None) -> list[bytes]:
    """Raw messages ``m<start>`` and up, of 4 to 30 tokens, published so far ahead of now, or at no time."""
    published = {} if ahead is None else {"published_at": (datetime.now(UTC) + ahead).isoformat()}
    return [
        json.dumps({"id": f"m{n}", "text": "비트 가즈아 떡상 " * (1 + n % 9)} | published).encode()
        for n in range(start, start + count)
    ]


async def feed(settings: Settings, start: int, count: int, ahead: timedelta | None = None) -> None:
    """Produce ``values`` round robin over the partitions; ``start`` and ``count`` divide by them."""
    await produce(
        settings.kafka.bootstrap_servers,
        settings.topics.raw,
        values(start, count, ahead),
        partitions=PARTITIONS,
    )


async def outcomes(settings: Settings) -> int:
    """Signals and dead letters there are."""
    async with TopicCounter(settings.kafka, settings.topics.signals, settings.topics.dead_letter) as counter:
        return sum((await counter.update()).values())


async def seen(settings: Settings) -> Counter[str]:
    """How often each id has a signal or a dead letter."""
    servers = settings.kafka.bootstrap_servers
    signals = ids(await read_topic(servers, settings.topics.signals))
    letters = await read_topic(servers, settings.topics.dead_letter)
    return Counter([*signals, *(json.loads(letter.value)["id"] for letter in letters)])


async def all_there(settings: Settings, count: int, timeout: float = 120.0) -> Counter[str]:
    """Wait until every id has an outcome, and count how often each has."""
    expected = {f"m{n}" for n in range(count)}
    found: Counter[str] = Counter()
    # One counter for all looks: a look reads for a second, and 200,000 signals take a new one longer.
    async with TopicCounter(settings.kafka, settings.topics.signals, settings.topics.dead_letter) as counter:

        async def complete() -> bool:
            nonlocal found
            if (await counter.update()).total() < count:
                return False
            found = await seen(settings)
            return set(found) == expected

        await eventually(complete, timeout=timeout, interval=0.3, what="every id among the outcomes")
    return found


async def positions(settings: Settings) -> list[int]:
    """Committed offset of each raw partition."""
    found = await committed(
        settings.kafka.bootstrap_servers, settings.source.group_id, settings.topics.raw, PARTITIONS
    )
    return [found[partition] or 0 for partition in range(PARTITIONS)]


async def committed_to_the_end(settings: Settings, count: int, timeout: float = 30.0) -> None:
    """Wait until the group has committed all messages."""

    async def complete() -> bool:
        return sum(await positions(settings)) == count

    await eventually(complete, timeout=timeout, interval=0.2, what="commits up to the end")


async def tally(settings: Settings, count: int) -> Tally:
    """Judge the topics as they stand; message ``n`` is offset ``n // PARTITIONS`` of its partition.

    Raises AssertionError where the aggregates of the signals are no recount of them.
    """
    below = await positions(settings)  # before the outcomes: these can only be more by then
    found = await seen(settings)
    await equal_a_recount(settings)
    numbers = range(count)
    return Tally(
        messages=count,
        lost=sum(f"m{n}" not in found for n in numbers),
        repeated=sum(found.values()) - len(found),
        unfinished_committed=sum(
            f"m{n}" not in found and n // PARTITIONS < below[n % PARTITIONS] for n in numbers
        ),
    )


async def recovery(settings: Settings, before: int, since: float, timeout: float = 90.0) -> float:
    """Seconds from ``since`` (monotonic) until there are more outcomes than ``before``."""

    async def more() -> bool:
        return await outcomes(settings) > before

    await eventually(more, timeout=timeout, interval=0.1, what="progress after the fault")
    return monotonic() - since


async def times(settings: Settings) -> tuple[list[datetime], list[datetime]]:
    """``published_at`` and ``processed_at`` of all signals."""
    records = await read_topic(settings.kafka.bootstrap_servers, settings.topics.signals)
    signals = [json.loads(record.value) for record in records]
    return (
        [datetime.fromisoformat(signal["published_at"]) for signal in signals],
        [datetime.fromisoformat(signal["processed_at"]) for signal in signals],
    )


def events(logs: Sequence[Path], event: str) -> int:
    """How often the logs have an event."""
    return sum(log.read_text(errors="replace").count(event) for log in logs)


async def pause(seconds: float) -> None:
    """The fault itself lasts this long: nothing is waited for."""
    done = asyncio.get_running_loop().create_future()
    asyncio.get_running_loop().call_later(seconds, done.set_result, None)
    await done


async def ready(*workers: KbertProcess) -> None:
    """Wait until each has partitions."""
    for worker in workers:
        await eventually(
            lambda worker=worker: worker.says("partitions.assigned"),  # type: ignore[misc]
            timeout=60,
        )


async def ended(*workers: KbertProcess) -> None:
    """SIGTERM, and each ends with status 0."""
    for worker in workers:
        worker.send(signal.SIGTERM)
    for worker in workers:
        status = await asyncio.to_thread(worker.wait)
        assert status == 0, worker.log.read_text(errors="replace")[-2_000:]
