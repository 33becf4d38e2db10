"""Worker processes that are killed, joined and stopped under load: nothing is lost."""

import asyncio
import random
import signal
from pathlib import Path

from tests.faults.load import WORKER, all_there, committed_to_the_end, feed, outcomes, worker_settings
from tests.processes import kbert
from tests.servers import KafkaServer, Topics
from tests.waiting import eventually
from worker.source.counting import TopicCounter


async def test_a_worker_killed_in_the_middle_loses_nothing(
    kafka: KafkaServer, topics: Topics, checkpoint: Path, tmp_path: Path
) -> None:
    settings = await worker_settings(kafka, topics, checkpoint)
    count = 20_000
    await feed(settings, 0, count)
    at_least = random.randint(200, 2_000)
    async with TopicCounter(settings.kafka, settings.topics.signals) as counter:
        with kbert(WORKER, settings, tmp_path / "first.log") as first:

            async def enough() -> bool:
                counts = await counter.update(timeout=0.02, at_most=0.05)
                return first.running and counts[settings.topics.signals] >= at_least

            await eventually(enough, timeout=120, interval=0.0)
            first.send(signal.SIGKILL)
            first.wait()
    at_kill = await outcomes(settings)
    assert at_kill < count, "the worker was done before it was killed: the test shows nothing"

    with kbert(WORKER, settings, tmp_path / "second.log") as second:
        seen = await all_there(settings, count)
        await committed_to_the_end(settings, count)
        second.send(signal.SIGTERM)
        assert second.wait() == 0
    repeats = sum(seen.values()) - count
    # What was sent and not yet committed when the worker died, and no more than that.
    assert repeats <= at_kill


async def test_workers_that_join_and_leave_under_load_lose_nothing(
    kafka: KafkaServer, topics: Topics, checkpoint: Path, tmp_path: Path
) -> None:
    settings = await worker_settings(kafka, topics, checkpoint)
    count = 12_000

    async def feed_slowly() -> None:
        for start in range(0, count, 500):
            await feed(settings, start, 500)

    with (
        kbert(WORKER, settings, tmp_path / "first.log") as first,
        kbert(WORKER, settings, tmp_path / "second.log") as second,
    ):
        await eventually(lambda: first.says("worker.ready") and second.says("worker.ready"), timeout=120)
        feeding = asyncio.create_task(feed_slowly())

        async def halfway() -> bool:
            return await outcomes(settings) >= count // 4

        await eventually(halfway, timeout=60, interval=0.05)
        with kbert(WORKER, settings, tmp_path / "third.log") as third:
            await eventually(lambda: third.says("partitions.assigned"), timeout=60)
            first.send(signal.SIGTERM)
            assert first.wait() == 0
            await feeding
            seen = await all_there(settings, count)
            await committed_to_the_end(settings, count)
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
    settings = await worker_settings(kafka, topics, checkpoint)
    with kbert(WORKER, settings, tmp_path / "log", KBERT_KAFKA__BOOTSTRAP_SERVERS="127.0.0.1:1") as process:
        assert process.wait(60) == 1
        last = process.log.read_text().strip().splitlines()[-1]
        assert last.startswith("kbert: No Kafka broker answers at kafka.bootstrap_servers=127.0.0.1:1")
