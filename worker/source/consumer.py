"""The consumer group that reads raw messages."""

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import structlog
from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener, TopicPartition
from aiokafka.errors import (
    CommitFailedError,
    IllegalStateError,
    KafkaError,
)

from worker.errors import ConnectionFailedError
from worker.settings import KafkaSettings, SourceSettings
from worker.source.ledger import OffsetLedger
from worker.telemetry import metrics

log = structlog.get_logger(__name__)


class Claim:
    """This worker's hold on one partition, from its assignment to its revocation.

    Records carry their claim, so that work for a partition which was given up is
    dropped wherever it stands, and never committed late.
    """

    __slots__ = ("active", "partition")

    def __init__(self, partition: TopicPartition) -> None:
        self.partition = partition
        self.active = True


@dataclass(frozen=True, slots=True)
class Record:
    """One record as it came, with the claim under which it was read."""

    claim: Claim
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes]]


class KafkaSource:
    """Reads records, remembers which are finished, commits only those.

    ``pause()`` is never used (it throws prefetched records away): to hold back, do not
    call ``poll``. ``commit()`` without offsets is never used (it commits what was
    delivered, not what was processed).
    """

    def __init__(self, topic: str, kafka: KafkaSettings, settings: SourceSettings) -> None:
        self._topic = topic
        self._settings = settings
        self._ledger: OffsetLedger[TopicPartition] = OffsetLedger()
        self._claims: dict[TopicPartition, Claim] = {}
        self._progress = asyncio.Event()  # set whenever an offset is finished
        self._committing = asyncio.Lock()
        self.failure: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._address = kafka.bootstrap_servers
        self._consumer = AIOKafkaConsumer(
            group_id=settings.group_id,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            isolation_level="read_committed",
            max_poll_interval_ms=int(settings.max_poll_interval * 1000),
            session_timeout_ms=int(settings.session_timeout * 1000),
            heartbeat_interval_ms=int(settings.session_timeout * 1000 / 3),
            # Its default is the session timeout: too short for a drain, and a member that
            # drains for longer than this is thrown out.
            rebalance_timeout_ms=int((settings.drain_timeout + settings.session_timeout) * 1000),
            fetch_max_wait_ms=100,
            **kafka.client_options(),
        )

    async def start(self) -> None:
        """Join the group.

        Raises:
            ConnectionFailedError: no broker answers.
        """
        self._consumer.subscribe([self._topic], listener=_Listener(self))
        try:
            await self._consumer.start()
        except KafkaError as error:
            await self._consumer.stop()
            raise ConnectionFailedError(
                f"No Kafka broker answers at kafka.bootstrap_servers={self._address}: "
                f"start one or correct the setting ({error})."
            ) from error

    async def stop(self) -> None:
        """Commit what is finished and leave the group; a broker that is silent is not waited for."""
        try:
            async with asyncio.timeout(self._settings.drain_timeout):
                try:
                    await self.commit()
                finally:
                    await self._consumer.stop()
        except TimeoutError:
            log.warning("source.stop_abandoned", seconds=self._settings.drain_timeout)

    async def poll(self, max_records: int, timeout: float = 0.2) -> list[Record]:
        """Read the next records and track their offsets.

        Returns:
            At most ``max_records`` records, in offset order within each partition.
        """
        if self.failure.done():
            self.failure.result()
        polled = await self._consumer.getmany(timeout_ms=int(timeout * 1000), max_records=max_records)
        records: list[Record] = []
        for partition, messages in polled.items():
            claim = self._claims.get(partition)
            if claim is None or not claim.active:
                continue  # revoked while the records were on their way
            self._ledger.track(partition, (message.offset for message in messages))
            records.extend(
                Record(claim, m.offset, m.timestamp, m.key, m.value, m.headers or ()) for m in messages
            )
        return records

    def finish(self, records: Iterable[Record]) -> None:
        """The outcome of these records is acknowledged by the broker."""
        for record in records:
            if record.claim.active:
                self._ledger.finish(record.claim.partition, record.offset)
        self._progress.set()

    def outstanding(self) -> int:
        """Records read and not finished."""
        return self._ledger.outstanding()

    async def commit(self) -> None:
        """Commit what is finished, in order, per partition.

        A commit that the group refuses (a rebalance is under way) is no error: the
        records are read again by whoever owns them next.
        """
        async with self._committing:
            positions = self._ledger.committable()
            if not positions:
                return
            try:
                await self._consumer.commit(dict(positions))
            except (CommitFailedError, IllegalStateError) as error:
                metrics.COMMITS.labels("refused").inc()
                log.warning("commit.refused", error=str(error))
                return
            except KafkaError as error:
                if not error.retriable:
                    raise
                metrics.COMMITS.labels("retried").inc()
                log.warning("commit.failed", error=repr(error))
                return
            metrics.COMMITS.labels("done").inc()
            self._ledger.mark_committed(positions)

    async def commit_forever(self) -> None:
        """Commit at every interval, until cancelled."""
        while True:
            await asyncio.sleep(self._settings.commit_interval)
            await self.commit()

    async def drained(self, timeout: float, partitions: Sequence[TopicPartition] | None = None) -> bool:
        """Wait until nothing of the partitions (default: all) is unfinished, or the time is over."""
        try:
            async with asyncio.timeout(timeout):
                while self._ledger.outstanding(partitions):
                    self._progress.clear()
                    await self._progress.wait()
        except TimeoutError:
            return False
        return True

    async def caught_up(self, timeout: float) -> bool:
        """Whether it is known that no record waits: the broker is asked, and has to answer in time."""
        mine = self._consumer.assignment()
        try:
            async with asyncio.timeout(timeout):
                ends = await self._consumer.end_offsets(mine) if mine else {}
                return all([await self._consumer.position(tp) >= end for tp, end in ends.items()])
        except (TimeoutError, KafkaError):
            return False

    async def _revoke(self, partitions: Sequence[TopicPartition]) -> None:
        metrics.REBALANCES.inc()
        if await self.drained(self._settings.drain_timeout, partitions):
            log.info("partitions.revoked", partitions=len(partitions))
        else:
            log.warning("partitions.given_up", unfinished=self._ledger.outstanding(partitions))
        await self.commit()
        for partition in partitions:
            claim = self._claims.pop(partition, None)
            if claim is not None:
                claim.active = False
        self._ledger.release(partitions)
        self._progress.set()

    def _assign(self, partitions: Iterable[TopicPartition]) -> None:
        for partition in partitions:
            self._claims[partition] = Claim(partition)
        log.info("partitions.assigned", partitions=sorted(p.partition for p in self._claims))


class _Listener(ConsumerRebalanceListener):  # type: ignore[misc]
    """aiokafka logs and swallows a listener's errors, so they are handed to ``poll``."""

    def __init__(self, source: KafkaSource) -> None:
        self._source = source

    async def on_partitions_revoked(self, revoked: Iterable[TopicPartition]) -> None:
        if revoked:
            await self._guard(self._source._revoke(list(revoked)))

    async def on_partitions_assigned(self, assigned: Iterable[TopicPartition]) -> None:
        self._source._assign(assigned)

    async def _guard(self, work: Any) -> None:
        try:
            await work
        except Exception as error:
            if not self._source.failure.done():
                self._source.failure.set_exception(error)
            raise
