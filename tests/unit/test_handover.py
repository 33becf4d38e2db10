"""A partition that is given away in exactly-once mode is not taken from under a transaction."""

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping
from unittest.mock import AsyncMock, Mock

import pytest
from aiokafka import TopicPartition
from aiokafka.errors import KafkaError, ProducerFenced

from worker.errors import ConnectionFailedError
from worker.settings import KafkaSettings, SourceSettings, load_settings
from worker.sink.transactions import TransactionalSink, _Lane
from worker.source.committing import Committed
from worker.source.consumer import KafkaSource
from worker.source.record import Claim

PLACE, OTHER = TopicPartition("raw", 0), TopicPartition("raw", 1)


class Committer:
    """Transactions that take a few turns of the loop; notes a release of what is in one."""

    def __init__(self) -> None:
        self.held = {PLACE}
        self.in_flight: set[TopicPartition] = set()
        self.cut_off: set[TopicPartition] = set()
        self.begun = asyncio.Event()
        self.committed: list[int] = []
        self.silent = False

    async def due(self) -> None:
        await asyncio.sleep(0)

    async def claim(self, partitions: Iterable[TopicPartition]) -> None:
        if self.silent:
            raise ConnectionFailedError("Kafka does not open a transactional producer.")
        self.held.update(partitions)

    async def commit(self, positions: Mapping[TopicPartition, int]) -> dict[TopicPartition, Committed]:
        mine = {partition: position for partition, position in positions.items() if partition in self.held}
        self.in_flight |= mine.keys()
        self.begun.set()
        for _ in range(10):
            await asyncio.sleep(0)
        self.in_flight -= mine.keys()
        self.committed += mine.values()
        return dict.fromkeys(mine, Committed.DONE)

    async def release(self, partitions: Iterable[TopicPartition]) -> None:
        gone = set(partitions)
        self.cut_off |= gone & self.in_flight
        self.held -= gone


@pytest.fixture
async def committer() -> Committer:
    return Committer()


@pytest.fixture
async def source(committer: Committer) -> AsyncIterator[KafkaSource]:
    source = KafkaSource("raw", KafkaSettings(), SourceSettings(session_timeout=0.003), committer)
    yield source
    await source._consumer.stop()


async def test_no_commit_begins_between_the_last_one_and_the_release(
    source: KafkaSource, committer: Committer
) -> None:
    source._claims[PLACE] = Claim(PLACE)
    source._ledger.track(PLACE, [0])
    source._ledger.finish(PLACE, [0])
    revoking = asyncio.create_task(source._revoke([PLACE]))
    await committer.begun.wait()
    source._ledger.track(PLACE, [1])  # finished while the last transaction runs
    source._ledger.finish(PLACE, [1])
    queued = asyncio.create_task(source.commit())
    await asyncio.gather(revoking, queued)
    assert committer.committed == [1]
    assert (committer.cut_off, committer.held) == (set(), set())


async def test_a_revocation_that_is_cancelled_still_releases_after_its_transaction(
    source: KafkaSource, committer: Committer
) -> None:
    source._ledger.track(PLACE, [0])
    source._ledger.finish(PLACE, [0])
    revoking = asyncio.create_task(source._revoke([PLACE]))
    await committer.begun.wait()
    revoking.cancel()
    await asyncio.wait({revoking})
    await source.commit()  # in turn behind it
    assert (committer.committed, committer.cut_off, committer.held) == ([1], set(), set())


@pytest.mark.parametrize("error", [ProducerFenced(), KafkaError("the coordinator is lost")])
async def test_what_fails_late_releases_no_lane_that_was_opened_since(error: Exception) -> None:
    sink = TransactionalSink(load_settings(_env_file=None))
    old, new = (_Lane(Mock(stop=AsyncMock()), AsyncMock()) for _ in range(2))

    async def replaced() -> None:
        sink._lanes[PLACE] = new
        raise error

    old.producer.begin_transaction = replaced
    sink._lanes[PLACE] = old
    await sink.commit({PLACE: 1})
    assert sink._lanes == {PLACE: new}
    new.producer.stop.assert_not_called()


async def test_a_producer_that_does_not_open_is_given_up_before_the_group_misses_a_heartbeat(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    settings = load_settings(_env_file=None, source=SourceSettings(session_timeout=0.02))
    sink = TransactionalSink(settings)
    opened: list[str] = []

    async def open_one(name: str) -> None:
        if name.endswith(".0"):
            await asyncio.Event().wait()
        opened.append(name)

    def producer(name: str) -> Mock:
        return Mock(start=lambda: open_one(name), stop=AsyncMock())

    monkeypatch.setattr(sink, "_producer", producer)
    with pytest.raises(ConnectionFailedError, match=r"within 0\.01 s .*sink\.request_timeout"):
        await asyncio.wait_for(sink.claim([PLACE, OTHER]), 10)
    assert opened == ["kbert-worker.raw.1"]
    await sink.stop()


async def test_partitions_whose_producers_do_not_open_are_claimed_later(
    source: KafkaSource, committer: Committer, monkeypatch: pytest.MonkeyPatch
) -> None:
    committer.silent = True
    seek = Mock()
    monkeypatch.setattr(source._consumer, "assignment", Mock(return_value={PLACE}))
    monkeypatch.setattr(source._consumer, "committed", AsyncMock(return_value=7))
    monkeypatch.setattr(source._consumer, "seek", seek)
    await source._claim([PLACE])
    assert (source._claims, source.joined, source.claims_fail) == ({}, False, True)
    while not source.joined:
        await source.commit()
        await asyncio.sleep(0)
        committer.silent = False
    assert source._claims[PLACE].active
    assert not source.claims_fail
    seek.assert_called_once_with(PLACE, 7)


async def test_producers_that_never_open_end_the_worker_after_the_stall_limit(
    source: KafkaSource, committer: Committer
) -> None:
    committer.silent = True
    await source._claim([PLACE])
    source._unclaimed[PLACE] -= 181.0
    with pytest.raises(ConnectionFailedError, match="transactional producer"):
        await source._claim([PLACE])
