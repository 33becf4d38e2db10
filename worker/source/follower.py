"""The consumer group that reads signals for the aggregates.

It differs from the raw source: one reader takes a partition's records strictly in order,
and what it has applied is known to Redis (the fences), not only to Kafka. So it may read
again what was applied, and does so on purpose after each assignment.
"""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from typing import NamedTuple

import structlog
from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener, TopicPartition
from aiokafka.errors import CommitFailedError, IllegalStateError, UnknownTopicOrPartitionError

from worker.settings import AggregateSettings, KafkaSettings, NarrativeSettings, topic_setting
from worker.source.header_names import escape_header_names
from worker.source.lag import lag_of
from worker.source.membership import COMMIT_SECONDS, join, leave
from worker.source.positions import (
    DROPPED,
    NO_RESET,
    OUT_OF_PLACE,
    bounds_of,
    positions_of,
    report_lost,
    report_shorter,
    report_uncommitted,
)
from worker.source.reaching import Group, refusals
from worker.telemetry.metrics import RECORDS_LOST, LagGauge

log = structlog.get_logger(__name__)


Partition = tuple[str, int]
"""Topic and partition number."""


class Found(NamedTuple):
    """What the broker says of partitions that are new to this process."""

    committed: dict[Partition, int | None]
    """Next offset of each; None where nothing is committed."""
    oldest: dict[Partition, int]
    """Offset of the first record that is still there."""
    ends: dict[Partition, int] | None
    """Next offset that the broker will give, where its answer is exact."""


class Start(NamedTuple):
    """Where to read a partition from."""

    offset: int
    applied: int
    """Next offset by what Redis has applied; 0 for nothing."""


OnAssigned = Callable[[Found], Awaitable[dict[Partition, Start]]]


class SignalRecord(NamedTuple):
    """Value of one record on the signals topic and where it stands."""

    offset: int
    value: bytes


class SignalFollower:
    """Reads a signals topic in order, from where ``on_assigned`` says.

    Args:
        on_assigned: answers where to start each new partition.
        on_revoked: told which partitions another member reads now.
        ends_are_exact: whether the broker's end offsets can be believed.
        stall_limit: seconds in which the group has to let us in.
        pipeline: label of the metrics.
    """

    def __init__(
        self,
        topic: str,
        kafka: KafkaSettings,
        settings: AggregateSettings | NarrativeSettings,
        *,
        on_assigned: OnAssigned,
        on_revoked: Callable[[Collection[Partition]], None],
        ends_are_exact: bool = True,
        stall_limit: float = 180.0,
        pipeline: str = "crypto",
    ) -> None:
        self._topic = topic
        self._setting = topic_setting(pipeline, "signals")
        self._settings = settings
        self._stall_limit = stall_limit
        self._pipeline = pipeline
        RECORDS_LOST.labels(pipeline, "aggregates")  # there from the start, as in the worker
        section = "narrative" if pipeline == "traffic" else "aggregates"
        self._group = Group(
            settings.group_id, f"{section}.group_id", settings.session_timeout, f"{section}.session_timeout"
        )
        self._lag = LagGauge(pipeline, "aggregates")
        self._kafka = kafka
        self._on_assigned = on_assigned
        self._on_revoked = on_revoked
        self._ends_are_exact = ends_are_exact
        self._applied: dict[TopicPartition, int] = {}
        # Records can be delivered between the assignment and our seek. Applied in that order they
        # would move the fences past what the seek is to heal, so they are dropped and read again.
        self._positioned: set[TopicPartition] = set()
        self._failure: Exception | None = None
        self.joined = False
        """Whether the group has ever assigned partitions, or none to a spare member."""
        self.topic_is_gone = False
        """Whether the last look at the lag has found no topic."""
        escape_header_names()
        self._consumer = AIOKafkaConsumer(
            group_id=settings.group_id,
            enable_auto_commit=False,
            isolation_level="read_committed",
            session_timeout_ms=int(settings.session_timeout * 1000),
            heartbeat_interval_ms=int(settings.session_timeout * 1000 / 3),
            fetch_max_wait_ms=100,
            **NO_RESET,
            **kafka.client_options(),
        )

    async def start(self) -> None:
        """Join the group.

        Raises:
            ConnectionFailedError: no broker answers, or the group does not let us in, as `join` has it.
            ConfigurationError: there is no such topic, or this user may not read it.
        """
        await join(
            self._consumer,
            self._topic,
            _Listener(self),
            self._kafka,
            setting=self._setting,
            group=self._group,
            limits={"source.stall_limit": self._stall_limit},
        )

    async def stop(self) -> None:
        """Commit what is applied and leave the group; a broker that is silent is not waited for."""
        await leave(
            self._consumer,
            lambda: self.commit(seconds=None),
            self._settings.session_timeout,
            event="aggregates.stop_abandoned",
        )

    async def poll(self, timeout: float = 0.2) -> dict[Partition, list[SignalRecord]]:
        """Next records of each partition, in offset order.

        Raises:
            ConfigurationError: this user may not read the topic, or not in this group; or the topic was made
                anew below what is applied.
        """
        if self._failure is not None:
            raise self._failure
        try:
            with refusals(topic=self._topic, setting=self._setting, group=self._group):
                polled = await self._consumer.getmany(
                    timeout_ms=int(timeout * 1000), max_records=self._settings.max_poll_records
                )
        except OUT_OF_PLACE as error:
            if not await self._place(positions_of(error)):
                await asyncio.sleep(timeout)
            return {}
        return {
            (tp.topic, tp.partition): [SignalRecord(m.offset, m.value or b"") for m in messages]
            for tp, messages in polled.items()
            if messages and tp in self._positioned
        }

    async def lag(self, timeout: float) -> dict[TopicPartition, int] | None:
        """Records of each partition that were not read yet; None where no broker answers in time."""
        try:
            lag = await lag_of(self._consumer, self._topic, timeout)
        except UnknownTopicOrPartitionError:
            self.topic_is_gone, lag = True, {}
        else:
            self.topic_is_gone = False
        if lag is not None:
            self._lag.show(lag)
        return lag

    def applied(self, partition: Partition, next_offset: int) -> None:
        """Everything of the partition below ``next_offset`` stands in Redis."""
        self._applied[TopicPartition(*partition)] = next_offset

    async def rewind(self, partition: Partition, offset: int) -> int | None:
        """Read on from ``offset``, or from the oldest record, and return which; None if it is not ours."""
        tp = TopicPartition(*partition)
        if tp not in self._consumer.assignment():
            return None
        oldest: int = (await self._consumer.beginning_offsets([tp]))[tp]
        start = max(oldest, offset)
        self._consumer.seek(tp, start)
        return start

    async def _place(self, positions: Mapping[TopicPartition, int | None]) -> bool:
        """Read on from where there are signals; as `KafkaSource._place`."""
        placed = False
        for tp, position in positions.items():
            # One that is not positioned yet will be, by its assignment.
            bounds = await bounds_of(self._consumer, tp) if tp in self._positioned else None
            if position is None or bounds is None or tp not in self._positioned:
                continue
            placed = True
            oldest, end = bounds
            if position < oldest:
                self._pass_over(tp, position, oldest)
                self._consumer.seek(tp, oldest)
            elif position > end:
                report_shorter(tp, position, oldest, end)
                self._applied.pop(tp, None)
                self._positioned.discard(tp)
                self._on_revoked([(tp.topic, tp.partition)])
                await self._position([tp], exact=True)
        return placed

    def _pass_over(self, tp: TopicPartition, position: int, oldest: int) -> None:
        report_lost(self._pipeline, "aggregates", tp, oldest - position, DROPPED)
        self._applied[tp] = oldest  # else a restart would tell of them again

    async def commit(self, seconds: float | None = COMMIT_SECONDS) -> None:
        """Commit what is applied.

        A refused commit, or one that no coordinator takes in time, is no error: the fences know.

        Args:
            seconds: in which the group has to take it; without end where None.
        """
        mine = self._consumer.assignment()
        positions = {tp: offset for tp, offset in self._applied.items() if tp in mine}
        self._applied.clear()
        if not positions:
            return
        try:
            # aiokafka tries again without end, and nothing is applied meanwhile.
            async with asyncio.timeout(seconds):
                await self._consumer.commit(positions)
        except (CommitFailedError, IllegalStateError) as error:
            log.warning("aggregates.commit_refused", error=str(error))
        except TimeoutError:
            self._applied = positions | self._applied  # the next one covers it
            log.warning(
                "aggregates.commit_failed", seconds=seconds, reason="no group coordinator has taken it"
            )

    async def _revoke(self, partitions: Collection[TopicPartition]) -> None:
        await self.commit()
        self._lag.show({})
        self._positioned.difference_update(partitions)
        self._on_revoked([(tp.topic, tp.partition) for tp in partitions])

    async def _assign(self, partitions: Iterable[TopicPartition]) -> None:
        await self._position(list(partitions), exact=self._ends_are_exact)

    async def _position(self, mine: list[TopicPartition], *, exact: bool) -> None:
        committed = {(tp.topic, tp.partition): await self._consumer.committed(tp) for tp in mine}
        oldest = _by_name(await self._consumer.beginning_offsets(mine) if mine else {})
        ends = _by_name(await self._consumer.end_offsets(mine)) if exact and mine else None
        for partition, (offset, applied) in (await self._on_assigned(Found(committed, oldest, ends))).items():
            tp = TopicPartition(*partition)
            if tp not in self._consumer.assignment():
                continue  # another member has it by now
            start = max(oldest[partition], offset)
            self._consumer.seek(tp, start)
            before = committed[partition]
            if before is None and start > applied > 0:
                # How many is not known: markers of transactions and repeats move no fence.
                report_uncommitted(tp, start, applied)
                self._applied[tp] = start
            elif before is not None and start > max(before, applied):  # so it is the oldest
                self._pass_over(tp, max(before, applied), start)
            self._positioned.add(tp)
        self.joined = True
        log.info("aggregates.assigned", partitions=sorted(number for _, number in committed))


def _by_name(offsets: Mapping[TopicPartition, int]) -> dict[Partition, int]:
    return {(tp.topic, tp.partition): offset for tp, offset in offsets.items()}


class _Listener(ConsumerRebalanceListener):  # type: ignore[misc]
    """aiokafka logs and swallows a listener's errors, so they are handed to ``poll``."""

    def __init__(self, follower: SignalFollower) -> None:
        self._follower = follower

    async def on_partitions_revoked(self, revoked: Iterable[TopicPartition]) -> None:
        await self._guard(self._follower._revoke(list(revoked)))

    async def on_partitions_assigned(self, assigned: Iterable[TopicPartition]) -> None:
        await self._guard(self._follower._assign(list(assigned)))

    async def _guard(self, work: Awaitable[None]) -> None:
        try:
            await work
        except Exception as error:
            self._follower._failure = error
            raise
