"""Worker processes in exactly-once mode that are stopped, killed and continued: on Apache Kafka."""

import random
import signal
from collections import Counter
from pathlib import Path

import pytest

from tests.faults.load import (
    ENTRY,
    WORKER,
    all_there,
    committed_to_the_end,
    feed,
    in_transactions,
    outcomes,
    seen,
    worker_settings,
)
from tests.processes import kbert
from tests.servers import KafkaServer, Topics
from tests.waiting import eventually


def _environment(kafka: KafkaServer, **more: str) -> dict[str, str]:
    return more if kafka.is_apache else {"FAULT_NEWER_INIT": "1", **more}


def _once_each(count: int) -> Counter[str]:
    return Counter(f"m{n}" for n in range(count))


# Not on the embedded broker: it ends no transaction by itself, and in one run of four the reader did not
# see the last ids within 90 s after A, stopped in its transaction, had gone on. The cause was not found.
@pytest.mark.apache_kafka
async def test_a_worker_stopped_in_the_middle_of_a_transaction_comes_back_as_a_zombie_and_changes_nothing(
    kafka: KafkaServer, topics: Topics, checkpoint: Path, tmp_path: Path
) -> None:
    settings = in_transactions(await worker_settings(kafka, topics, checkpoint))
    count = 40_000  # half of it lasts for many rounds of transactions: A is stopped in the second
    await feed(settings, 0, count // 2)
    with kbert(
        WORKER,
        settings,
        tmp_path / "a.log",
        module=ENTRY,
        cwd=None,
        **_environment(kafka, FAULT_STOP_IN_TRANSACTION="6"),
    ) as zombie:
        await eventually(lambda: zombie.says("worker.ready"), timeout=60)
        await eventually(lambda: _stopped(zombie.pid), timeout=60, what="A stopped in its transaction")
        before = await outcomes(settings)
        assert before < count // 2, "A was done before it was stopped: the test shows nothing"

        with kbert(
            WORKER, settings, tmp_path / "b.log", module=ENTRY, cwd=None, **_environment(kafka)
        ) as heir:
            # A's session ends, B takes all partitions over and aborts what A left open.
            await eventually(lambda: heir.says("partitions.assigned"), timeout=60)
            await all_there(settings, count // 2, timeout=90)
            await committed_to_the_end(settings, count // 2)

            zombie.send(signal.SIGCONT)
            await feed(settings, count // 2, count // 2)
            await eventually(
                # Fenced, as Apache Kafka says; failed, where time ran out while it was stopped.
                lambda: zombie.says("transaction.fenced") or zombie.says("transaction.failed"),
                timeout=60,
                what="A learns that its transaction is over",
            )
            found = await all_there(settings, count, timeout=90)
            await committed_to_the_end(settings, count)
            if kafka.is_apache:
                assert found == _once_each(count)
            assert zombie.running, "being fenced is no crash"
            for process in (zombie, heir):
                process.send(signal.SIGTERM)
            assert [zombie.wait(), heir.wait()] == [0, 0]
    if kafka.is_apache:
        assert await seen(settings) == _once_each(count)


@pytest.mark.apache_kafka
async def test_workers_killed_at_random_moments_leave_every_id_exactly_once(
    kafka: KafkaServer, topics: Topics, checkpoint: Path, tmp_path: Path
) -> None:
    settings = in_transactions(await worker_settings(kafka, topics, checkpoint))
    count = 20_000
    await feed(settings, 0, count)
    for number in range(5):
        with kbert(WORKER, settings, tmp_path / f"{number}.log", module=ENTRY) as worker:
            goal = await outcomes(settings) + random.randint(200, 2_000)

            async def enough(goal: int = goal) -> bool:
                return await outcomes(settings) >= goal

            await eventually(enough, timeout=60, interval=0.0)
            worker.send(signal.SIGKILL)
            worker.wait()
    assert await outcomes(settings) < count, "all was done before the last kill: the test shows nothing"
    with kbert(WORKER, settings, tmp_path / "last.log", module=ENTRY) as worker:
        found = await all_there(settings, count, timeout=90)
        await committed_to_the_end(settings, count)
        worker.send(signal.SIGTERM)
        assert worker.wait() == 0
    assert found == _once_each(count)


def _stopped(pid: int) -> bool:
    state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    return state == "T"
