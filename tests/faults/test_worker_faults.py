"""Worker processes that are killed, joined and stopped under load: nothing is lost."""

import asyncio
import json
import random
import signal
from collections import Counter
from pathlib import Path

from tests.kafka_io import committed, ids, produce, read_topic, settings_for
from tests.processes import kbert
from tests.servers import KafkaServer, Topics
from tests.waiting import eventually
from worker.settings import BatchSettings, ModelSettings, Settings, SourceSettings
from worker.source.counting import TopicCounter

PARTITIONS = 4


async def _settings(kafka: KafkaServer, topics: Topics, checkpoint: Path) -> Settings:
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


def _values(start: int, count: int) -> list[bytes]:
    return [
        json.dumps({"id": f"m{n}", "text": "비트 가즈아 떡상 " * (1 + n % 9)}).encode()
        for n in range(start, start + count)
    ]


async def _outcomes(settings: Settings) -> int:
    async with TopicCounter(settings.kafka, settings.topics.signals, settings.topics.dead_letter) as counter:
        return sum((await counter.update()).values())


async def _all_there(settings: Settings, count: int) -> Counter[str]:
    """Wait until every id has a signal, and count how often each has."""
    expected = {f"m{n}" for n in range(count)}
    seen: Counter[str] = Counter()

    async def complete() -> bool:
        nonlocal seen
        if await _outcomes(settings) < count:
            return False
        seen = Counter(ids(await read_topic(settings.kafka.bootstrap_servers, settings.topics.signals)))
        return set(seen) == expected

    await eventually(complete, timeout=60, interval=0.3, what="every id among the signals")
    return seen


async def _committed_to_the_end(settings: Settings, count: int) -> None:
    async def complete() -> bool:
        offsets = await committed(
            settings.kafka.bootstrap_servers, settings.source.group_id, settings.topics.raw, PARTITIONS
        )
        return sum(offset or 0 for offset in offsets.values()) == count

    await eventually(complete, timeout=20, interval=0.2, what="commits up to the end")


async def test_a_worker_killed_in_the_middle_loses_nothing(
    kafka: KafkaServer, topics: Topics, checkpoint: Path, tmp_path: Path
) -> None:
    settings = await _settings(kafka, topics, checkpoint)
    count = 20_000
    await produce(kafka.bootstrap_servers, settings.topics.raw, _values(0, count), partitions=PARTITIONS)
    at_least = random.randint(200, 2_000)
    with kbert(["run", "--only", "worker"], settings, tmp_path / "first.log") as first:
        await eventually(lambda: first.says("worker.ready"), timeout=60)

        async def enough() -> bool:
            return await _outcomes(settings) >= at_least

        await eventually(enough, timeout=60, interval=0.0)
        first.send(signal.SIGKILL)
        first.wait()
    at_kill = await _outcomes(settings)
    assert at_kill < count, "the worker was done before it was killed: the test shows nothing"

    with kbert(["run", "--only", "worker"], settings, tmp_path / "second.log") as second:
        seen = await _all_there(settings, count)
        await _committed_to_the_end(settings, count)
        second.send(signal.SIGTERM)
        assert second.wait() == 0
    repeats = sum(seen.values()) - count
    # What was sent and not yet committed when the worker died, and no more than that.
    assert repeats <= at_kill


async def test_workers_that_join_and_leave_under_load_lose_nothing(
    kafka: KafkaServer, topics: Topics, checkpoint: Path, tmp_path: Path
) -> None:
    settings = await _settings(kafka, topics, checkpoint)
    count = 12_000

    async def feed() -> None:
        for start in range(0, count, 500):
            await produce(
                kafka.bootstrap_servers, settings.topics.raw, _values(start, 500), partitions=PARTITIONS
            )

    with (
        kbert(["run", "--only", "worker"], settings, tmp_path / "first.log") as first,
        kbert(["run", "--only", "worker"], settings, tmp_path / "second.log") as second,
    ):
        await eventually(lambda: first.says("worker.ready") and second.says("worker.ready"), timeout=60)
        feeding = asyncio.create_task(feed())

        async def halfway() -> bool:
            return await _outcomes(settings) >= count // 4

        await eventually(halfway, timeout=60, interval=0.05)
        with kbert(["run", "--only", "worker"], settings, tmp_path / "third.log") as third:
            await eventually(lambda: third.says("partitions.assigned"), timeout=60)
            first.send(signal.SIGTERM)
            assert first.wait() == 0
            await feeding
            seen = await _all_there(settings, count)
            await _committed_to_the_end(settings, count)
            for process in (second, third):
                process.send(signal.SIGTERM)
            assert [second.wait(), third.wait()] == [0, 0]
    # Every member drained what it gave away, so a repeat needs a drain that ran out of time.
    given_up = sum(
        (tmp_path / f"{n}.log").read_text().count("given_up") for n in ("first", "second", "third")
    )
    if not given_up:
        assert sum(seen.values()) == count


async def test_misconfiguration_ends_at_start_with_one_sentence(
    kafka: KafkaServer, topics: Topics, checkpoint: Path, tmp_path: Path
) -> None:
    settings = await _settings(kafka, topics, checkpoint)
    with kbert(
        ["run", "--only", "worker"], settings, tmp_path / "log", KBERT_KAFKA__BOOTSTRAP_SERVERS="127.0.0.1:1"
    ) as process:
        assert process.wait(60) == 1
        last = process.log.read_text().strip().splitlines()[-1]
        assert last.startswith("kbert: No Kafka broker answers at kafka.bootstrap_servers=127.0.0.1:1")
