"""The consumer group that reads signals for the aggregates.

It differs from the raw source: one reader takes a partition's records strictly in order,
and what it has applied is known to Redis (the fences), not only to Kafka. So it may read
again what was applied, and does so on purpose after each assignment.
"""

from collections.abc import Awaitable, Callable, Collection, Iterable
from typing import NamedTuple

import structlog
from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener, TopicPartition
from aiokafka.errors import CommitFailedError, IllegalStateError, KafkaError

from worker.settings import AggregateSettings, KafkaSettings, NarrativeSettings, topic_setting
from worker.source.header_names import escape_header_names
from worker.source.lag import lag_of
from worker.source.membership import join, leave
from worker.source.reaching import refusals
from worker.telemetry.metrics import LagGauge

log = structlog.get_logger(__name__)


Partition = tuple[str, int]
"""Topic and partition number."""

OnAssigned = Callable[
    [dict[Partition, int | None], dict[Partition, int] | None], Awaitable[dict[Partition, int]]
]


class SignalRecord(NamedTuple):
    """Value of one record on the signals topic and where it stands."""

    offset: int
    value: bytes


class SignalFollower:
    """Reads a signals topic in order, from where ``on_assigned`` says.

    Args:
        on_assigned: given the committed offset of each new partition, and their end offsets
            where these are exact, answers where to start.
        on_revoked: told which partitions another member reads now.
        ends_are_exact: whether the broker's end offsets can be believed.
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
        pipeline: str = "crypto",
    ) -> None:
        self._topic = topic
        self._setting = topic_setting(pipeline, "signals")
        self._settings = settings
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
        escape_header_names()
        self._consumer = AIOKafkaConsumer(
            group_id=settings.group_id,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            isolation_level="read_committed",
            session_timeout_ms=int(settings.session_timeout * 1000),
            heartbeat_interval_ms=int(settings.session_timeout * 1000 / 3),
            fetch_max_wait_ms=100,
            **kafka.client_options(),
        )

    async def start(self) -> None:
        """Join the group.

        Raises:
            ConnectionFailedError: no broker answers.
            ConfigurationError: there is no such topic, or this user may not read it.
        """
        await join(self._consumer, self._topic, _Listener(self), self._kafka, setting=self._setting)

    async def stop(self) -> None:
        """Commit what is applied and leave the group; a broker that is silent is not waited for."""
        await leave(
            self._consumer, self.commit, self._settings.session_timeout, event="aggregates.stop_abandoned"
        )

    async def poll(self, timeout: float = 0.2) -> dict[Partition, list[SignalRecord]]:
        """Next records of each partition, in offset order.

        Raises:
            ConfigurationError: this user may not read the topic, or not in this group.
        """
        if self._failure is not None:
            raise self._failure
        with refusals(topic=self._topic, setting=self._setting):
            polled = await self._consumer.getmany(
                timeout_ms=int(timeout * 1000), max_records=self._settings.max_poll_records
            )
        return {
            (tp.topic, tp.partition): [SignalRecord(m.offset, m.value or b"") for m in messages]
            for tp, messages in polled.items()
            if messages and tp in self._positioned
        }

    async def lag(self, timeout: float) -> dict[TopicPartition, int] | None:
        """Records of each partition that were not read yet; None where no broker answers in time."""
        lag = await lag_of(self._consumer, timeout)
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

    async def commit(self) -> None:
        """Commit what is applied. A refused commit is no error: the fences know."""
        mine = self._consumer.assignment()
        positions = {tp: offset for tp, offset in self._applied.items() if tp in mine}
        self._applied.clear()
        if not positions:
            return
        try:
            await self._consumer.commit(positions)
        except (CommitFailedError, IllegalStateError) as error:
            log.warning("aggregates.commit_refused", error=str(error))
        except KafkaError as error:
            if not error.retriable:
                raise
            log.warning("aggregates.commit_failed", error=repr(error))

    async def _revoke(self, partitions: Collection[TopicPartition]) -> None:
        await self.commit()
        self._lag.show({})
        self._positioned.difference_update(partitions)
        self._on_revoked([(tp.topic, tp.partition) for tp in partitions])

    async def _assign(self, partitions: Iterable[TopicPartition]) -> None:
        mine = list(partitions)
        committed = {(tp.topic, tp.partition): await self._consumer.committed(tp) for tp in mine}
        ends: dict[Partition, int] | None = None
        if self._ends_are_exact and mine:
            found = await self._consumer.end_offsets(mine)
            ends = {(tp.topic, tp.partition): end for tp, end in found.items()}
        for partition, offset in (await self._on_assigned(committed, ends)).items():
            await self.rewind(partition, offset)
            self._positioned.add(TopicPartition(*partition))
        self.joined = True
        log.info("aggregates.assigned", partitions=sorted(number for _, number in committed))


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
