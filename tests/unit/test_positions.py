"""A reader that asks for an offset that its topic has not: nothing is passed over without a word."""

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping
from types import SimpleNamespace
from typing import Any
from unittest.mock import AsyncMock, Mock

import pytest
from aiokafka import TopicPartition
from aiokafka.errors import (
    KafkaTimeoutError,
    NoOffsetForPartitionError,
    OffsetOutOfRangeError,
    UnknownTopicOrPartitionError,
)
from prometheus_client import REGISTRY
from structlog.testing import capture_logs

from worker.errors import ConfigurationError
from worker.settings import AggregateSettings, KafkaSettings, SourceSettings
from worker.source.committing import Committed
from worker.source.consumer import KafkaSource
from worker.source.follower import Found, SignalFollower, Start
from worker.source.lag import lag_of
from worker.source.record import Claim

PLACE, OTHER = TopicPartition("raw", 0), TopicPartition("raw", 1)


class Logs:
    """A started consumer of partitions that hold ``oldest`` to ``end``, without a broker."""

    def __init__(self, logs: Mapping[TopicPartition, tuple[int, int]]) -> None:
        self.logs = dict(logs)
        self.positions: dict[TopicPartition, int | None] = dict.fromkeys(logs)
        self.committed_offsets: dict[TopicPartition, int] = {}
        self.has_coordinator, self.answers = True, True

    def assignment(self) -> set[TopicPartition]:
        return set(self.logs)

    async def getmany(self, **_: Any) -> dict[TopicPartition, list[Any]]:
        await asyncio.sleep(0)
        polled: dict[TopicPartition, list[Any]] = {}
        for partition, (oldest, end) in self.logs.items():
            position = self.positions[partition]
            misplaced = position is None or not oldest <= position <= end
            if misplaced and polled:
                break
            if position is None:
                raise NoOffsetForPartitionError(partition)
            if misplaced:
                raise OffsetOutOfRangeError(
                    {p: at for p, at in self.positions.items() if p == partition or at is not None}
                    if len(self.logs) > 1
                    else {partition: position}
                )
            if position < end:
                empty = {"timestamp": 0, "key": None, "value": b"", "headers": ()}
                polled[partition] = [SimpleNamespace(offset=n, **empty) for n in range(position, end)]
                self.positions[partition] = end
        return polled

    async def beginning_offsets(self, partitions: Iterable[TopicPartition]) -> dict[TopicPartition, int]:
        if not self.answers:
            raise KafkaTimeoutError("no answer")
        return {partition: self.logs[partition][0] for partition in partitions}

    async def end_offsets(self, partitions: Iterable[TopicPartition]) -> dict[TopicPartition, int]:
        return {partition: self.logs[partition][1] for partition in partitions}

    def seek(self, partition: TopicPartition, offset: int) -> None:
        self.positions[partition] = offset

    async def committed(self, partition: TopicPartition) -> int | None:
        return self.committed_offsets.get(partition)

    async def commit(self, positions: dict[TopicPartition, int]) -> None:
        if not self.has_coordinator:
            await asyncio.Event().wait()
        self.committed_offsets |= positions


class Transactions:
    """Commits into the same offsets, by who has claimed last."""

    def __init__(self, logs: Logs) -> None:
        self.logs = logs
        self.done: list[object] = []

    async def due(self) -> None:
        await asyncio.sleep(0)

    async def claim(self, partitions: Iterable[TopicPartition]) -> None:
        self.done.append("claim")

    async def commit(self, positions: Mapping[TopicPartition, int]) -> dict[TopicPartition, Committed]:
        self.done += positions.values()
        self.logs.committed_offsets |= positions
        return dict.fromkeys(positions, Committed.DONE)

    async def release(self, partitions: Iterable[TopicPartition]) -> None:
        self.done.append("release")


@pytest.fixture
async def logs() -> Logs:
    return Logs({PLACE: (0, 30)})


@pytest.fixture
async def source(logs: Logs) -> AsyncIterator[KafkaSource]:
    source = KafkaSource("raw", KafkaSettings(), SourceSettings(drain_timeout=0.5), pipeline="never-lost")
    real, source._consumer = source._consumer, logs
    await source._claim(list(logs.logs))
    yield source
    await real.stop()


def lost(service: str = "worker") -> float:
    labels = {"pipeline": "never-lost", "service": service}
    return REGISTRY.get_sample_value("kbert_records_lost_total", labels) or 0.0


async def polled(source: KafkaSource, count: int) -> list[Any]:
    records: list[Any] = []
    while len(records) < count:
        records += await source.poll(1_000, timeout=0.001)
    return records


async def test_a_group_without_offsets_begins_at_the_beginning(source: KafkaSource, logs: Logs) -> None:
    logs.logs[PLACE] = (5, 30)
    with capture_logs() as said:
        assert [record.offset for record in await polled(source, 25)] == list(range(5, 30))
    assert [(line["event"], line["read_from"]) for line in said] == [("records.uncommitted", 5)]
    await source.commit()
    assert logs.committed_offsets == {PLACE: 5}, "else each rebalance would tell of it again"


@pytest.mark.parametrize("end", [80, 60])  # with records left, and with none
async def test_what_a_topic_has_dropped_unread_is_told_and_counted_once(
    source: KafkaSource, logs: Logs, end: int
) -> None:
    source.finish(await polled(source, 30))
    logs.logs[PLACE] = (60, end)
    before = lost()
    with capture_logs() as said:
        assert await source.poll(1_000) == []
        assert [record.offset for record in await source.poll(1_000)] == list(range(60, end))
    (line,) = said
    assert (line["event"], line["log_level"], line["topic"], line["partition"], line["count"]) == (
        "records.lost",
        "error",
        "raw",
        0,
        30,
    )
    assert lost() - before == 30
    await source.commit()
    assert logs.committed_offsets == {PLACE: 60}  # so that a restart does not tell of them again


async def test_a_topic_made_anew_is_read_from_its_beginning_once_the_old_one_is_finished(
    source: KafkaSource, logs: Logs
) -> None:
    old = await polled(source, 30)
    logs.logs[PLACE] = (0, 10)
    before = lost()
    with capture_logs() as said:
        placing = asyncio.create_task(source.poll(1_000))
        for _ in range(5):
            await asyncio.sleep(0)
        assert old[0].claim.active  # its outcomes may go out still
        source.finish(old)
        assert await placing == []
    assert not old[0].claim.active
    line = next(line for line in said if line["log_level"] == "error")
    assert (line["event"], line["committed"], line["end"]) == ("records.read_again", 30, 10)
    assert (line["topic"], line["partition"]) == ("raw", 0)
    await source.commit()
    assert logs.committed_offsets == {PLACE: 0}  # a restart goes on here, however long the new one is by then
    source.finish(await polled(source, 10))
    await source.commit()
    assert logs.committed_offsets == {PLACE: 10}
    assert lost() == before


async def test_what_is_not_finished_of_a_log_that_is_gone_counts_as_lost(
    source: KafkaSource, logs: Logs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(source, "drained", AsyncMock(return_value=False))
    old = await polled(source, 30)
    source.finish(old[:20])
    logs.logs[PLACE] = (0, 10)
    before = lost()
    await source.poll(1_000)
    assert lost() - before == 10
    source.finish(old)  # too late, and nothing of the new log is finished by it
    await polled(source, 10)
    assert source.outstanding() == 10


async def test_in_a_transaction_the_old_log_is_committed_before_the_partition_is_claimed_anew(
    source: KafkaSource, logs: Logs
) -> None:
    transactions = source._transactions = Transactions(logs)
    source.finish(await polled(source, 30))
    logs.logs[PLACE] = (0, 10)
    await source.poll(1_000)
    source.finish(await polled(source, 10))
    await source.commit()
    assert transactions.done == [30, "claim", 10]


async def test_partitions_that_are_both_out_of_place_are_both_placed(source: KafkaSource, logs: Logs) -> None:
    logs.logs = {PLACE: (5, 6), OTHER: (0, 1)}
    logs.positions = {PLACE: 2, OTHER: 9}
    source._claims[OTHER] = Claim(OTHER)
    records = await polled(source, 2)
    assert [(record.claim.partition, record.offset) for record in records] == [(PLACE, 5), (OTHER, 0)]


async def test_records_in_hand_are_not_held_up(source: KafkaSource, logs: Logs) -> None:
    source._claims[OTHER] = Claim(OTHER)
    logs.logs[OTHER], logs.positions = (5, 6), {PLACE: 0, OTHER: None}
    assert len(await source.poll(1_000)) == 30  # and the next poll places the other
    assert logs.positions[OTHER] is None
    assert [record.offset for record in await polled(source, 1)] == [5]


async def test_a_broker_that_is_silent_just_then_is_asked_again(source: KafkaSource, logs: Logs) -> None:
    logs.answers = False
    assert await source.poll(1_000, timeout=0.001) == []
    logs.answers = True
    assert len(await polled(source, 30)) == 30


async def test_a_commit_that_no_coordinator_takes_is_left_to_the_next_one(
    source: KafkaSource, logs: Logs, monkeypatch: pytest.MonkeyPatch
) -> None:
    source.finish(await polled(source, 30))
    labels = ("kbert_commits_total", {"pipeline": "never-lost", "outcome": "retried"})
    before = REGISTRY.get_sample_value(*labels) or 0.0
    logs.has_coordinator = False
    await source.commit(seconds=0.001)
    assert (REGISTRY.get_sample_value(*labels) or 0.0) - before == 1
    logs.has_coordinator = True
    await source.commit()
    assert logs.committed_offsets == {PLACE: 30}

    last = Mock(side_effect=source._commit)
    monkeypatch.setattr(source, "_commit", last)
    monkeypatch.setattr(logs, "stop", AsyncMock(), raising=False)
    await source.stop()
    last.assert_called_once_with(None)  # nothing would cover it: the deadline of the stop bounds it


@pytest.fixture
async def follower(logs: Logs) -> AsyncIterator[SignalFollower]:
    follower = SignalFollower(
        "raw",
        KafkaSettings(),
        AggregateSettings(),
        on_assigned=AsyncMock(return_value={("raw", 0): Start(0, 0)}),
        on_revoked=Mock(),
        ends_are_exact=False,
        pipeline="never-lost",
    )
    real, follower._consumer = follower._consumer, logs
    yield follower
    await real.stop()


@pytest.mark.parametrize("running", [False, True])
async def test_signals_that_were_dropped_unread_are_told_and_counted_once(
    follower: SignalFollower, logs: Logs, *, running: bool
) -> None:
    logs.committed_offsets[PLACE] = 30
    before = lost("aggregates")
    with capture_logs() as said:
        if running:
            await follower._assign([PLACE])
            await follower.poll()
        logs.logs[PLACE] = (60, 80)
        if running:
            assert await follower.poll() == {}
        else:
            await follower._assign([PLACE])
        ((_, records),) = (await follower.poll()).items()
    assert records[0].offset == 60
    assert [line["count"] for line in said if line["event"] == "records.lost"] == [30]
    assert lost("aggregates") - before == 30
    await follower.commit()
    assert logs.committed_offsets == {PLACE: 60}


@pytest.mark.parametrize(
    ("committed", "applied", "told"),
    [
        (None, 30, [("records.uncommitted", None)]),
        (30, 50, [("records.lost", 10)]),
        (30, 70, []),
        (None, 0, []),
    ],
)
async def test_what_redis_has_applied_tells_what_was_dropped_unread(
    follower: SignalFollower,
    logs: Logs,
    committed: int | None,
    applied: int,
    told: list[tuple[str, int | None]],
) -> None:
    """Kafka forgets the offsets of a group that is away for a week."""
    if committed is not None:
        logs.committed_offsets[PLACE] = committed
    logs.logs[PLACE] = (60, 80)
    follower._on_assigned.return_value = {("raw", 0): Start(0, applied)}  # type: ignore[attr-defined]
    with capture_logs() as said:
        await follower._assign([PLACE])
    lines = [line for line in said if line["event"].startswith("records.")]
    assert [(line["event"], line.get("count")) for line in lines] == told
    await follower.commit()
    assert logs.committed_offsets.get(PLACE) == (60 if told else committed)


async def test_a_signals_topic_made_anew_is_compared_with_the_fences_again(
    follower: SignalFollower, logs: Logs
) -> None:
    await follower._assign([PLACE])
    await follower.poll()
    follower.applied(("raw", 0), 30)
    await follower.commit()
    logs.logs[PLACE] = (0, 10)
    with capture_logs() as said:
        assert await follower.poll() == {}
    assert "records.read_again" in [line["event"] for line in said]
    follower._on_revoked.assert_called_once_with([("raw", 0)])  # type: ignore[attr-defined]
    assigned = follower._on_assigned
    found = Found({("raw", 0): 30}, {("raw", 0): 0}, {("raw", 0): 10})
    assigned.assert_awaited_with(found)  # type: ignore[attr-defined]
    ((_, records),) = (await follower.poll()).items()
    assert len(records) == 10

    logs.logs[PLACE] = (0, 5)
    assigned.side_effect = ConfigurationError("it was made anew")  # type: ignore[attr-defined]
    with pytest.raises(ConfigurationError, match="made anew"):
        await follower.poll()


async def test_a_follower_keeps_what_no_coordinator_takes(follower: SignalFollower, logs: Logs) -> None:
    logs.has_coordinator = False
    follower.applied(("raw", 0), 7)
    await follower.commit(seconds=0.001)
    logs.has_coordinator = True
    await follower.commit()
    assert logs.committed_offsets == {PLACE: 7}


async def test_a_member_without_partitions_looks_whether_there_is_a_topic(
    source: KafkaSource, logs: Logs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logs, "assignment", Mock(return_value=set()))
    monkeypatch.setattr(logs, "topics", AsyncMock(return_value={"another"}), raising=False)
    with pytest.raises(UnknownTopicOrPartitionError):
        await lag_of(logs, "raw", 1.0)
    assert await source.lag(1.0) == {}
    assert source.topic_is_gone
    monkeypatch.setattr(logs, "topics", AsyncMock(return_value={"raw"}))
    assert await source.lag(1.0) == {}
    assert not source.topic_is_gone
