"""The consumer group that reads raw messages."""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from operator import attrgetter
from typing import Any

import structlog
from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener, TopicPartition
from aiokafka.errors import (
    CommitFailedError,
    IllegalStateError,
    KafkaError,
)

from worker.errors import ConnectionFailedError
from worker.settings import KafkaSettings, SourceSettings, topic_setting
from worker.source.committing import Committed, Committer
from worker.source.header_names import escape_header_names
from worker.source.lag import lag_of
from worker.source.ledger import OffsetLedger
from worker.source.membership import join, leave
from worker.source.reaching import refusals
from worker.source.record import Claim, Record
from worker.telemetry import metrics

__all__ = ["Claim", "KafkaSource", "Record"]

log = structlog.get_logger(__name__)

_CLAIM, _OFFSET, _SIZE = attrgetter("claim"), attrgetter("offset"), attrgetter("size")
_SLICE = 64
"""Records taken at once, and so by how many the bound in bytes can be passed."""


class KafkaSource:
    """Reads records, remembers which are finished, commits only those.

    ``pause()`` is never used (it throws prefetched records away): to hold back, do not
    call ``poll``. ``commit()`` without offsets is never used (it commits what was
    delivered, not what was processed).

    Args:
        transactions: commits the offsets together with the outcomes; the consumer group where absent.
        pipeline: label of the metrics.
    """

    def __init__(
        self,
        topic: str,
        kafka: KafkaSettings,
        settings: SourceSettings,
        transactions: Committer | None = None,
        pipeline: str = "crypto",
    ) -> None:
        self._topic = topic
        self._setting = topic_setting(pipeline, "raw")
        self._settings = settings
        self._pipeline = pipeline
        metrics.REBALANCES.labels(pipeline)  # there from the start, as in the pipeline
        self._lag = metrics.LagGauge(pipeline, "worker")
        self._ledger: OffsetLedger[TopicPartition] = OffsetLedger()
        self._claims: dict[TopicPartition, Claim] = {}
        self._transactions = transactions
        self._reclaim_at: dict[TopicPartition, float] = {}  # lost in a transaction, and by the loop's clock
        self._unclaimed: dict[TopicPartition, float] = {}  # no producer opens for them, and since when
        self._progress = asyncio.Event()  # set whenever an offset is finished
        self._committing = asyncio.Lock()
        self.joined = False
        """Whether the group has ever assigned partitions, or none to a spare member."""
        self.failure: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._kafka = kafka
        escape_header_names()
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
            fetch_max_wait_ms=int(settings.fetch_max_wait * 1000),
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
        """Commit what is finished and leave the group; a broker that is silent is not waited for."""
        await leave(self._consumer, self.commit, self._settings.drain_timeout, event="source.stop_abandoned")

    async def poll(self, max_records: int, timeout: float = 0.2) -> list[Record]:
        """Read the next records and track their offsets.

        Returns:
            At most ``max_records`` records, in offset order within each partition; none while
            ``source.max_unfinished_bytes`` are unfinished.

        Raises:
            ConfigurationError: this user may not read the topic, or not in this group.
        """
        if self.failure.done():
            self.failure.result()
        if not await self._has_room(timeout):
            return []
        records: list[Record] = []
        # Slices, since nobody knows the size of a record before it is there. Only the first one waits: the
        # others return at once, so no rebalance begins while records are in nobody's hands.
        while len(records) < max_records and self._has_room_now():
            with refusals(topic=self._topic, setting=self._setting):
                polled = await self._consumer.getmany(
                    timeout_ms=0 if records else int(timeout * 1000),
                    max_records=min(_SLICE, max_records - len(records)),
                )
            if not polled:
                break
            for partition, messages in polled.items():
                claim = self._claims.get(partition)
                if claim is None or not claim.active:
                    continue  # revoked while the records were on their way
                self._ledger.track(partition, map(_OFFSET, messages))
                taken = [
                    Record(claim, m.offset, m.timestamp, m.key, m.value, m.headers or ()) for m in messages
                ]
                claim.bytes_held += sum(map(_SIZE, taken))
                records += taken
        return records

    def finish(self, records: Iterable[Record]) -> None:
        """The outcome of these records is acknowledged by the broker."""
        for claim, run in groupby(records, _CLAIM):
            if claim.active:
                done = list(run)
                self._ledger.finish(claim.partition, map(_OFFSET, done))
                claim.bytes_held -= sum(map(_SIZE, done))
        self._progress.set()

    def outstanding(self) -> int:
        """Records read and not finished."""
        return self._ledger.outstanding()

    @property
    def claims_fail(self) -> bool:
        """Whether a partition is assigned for which the broker opens no producer."""
        return bool(self._unclaimed)

    def outstanding_bytes(self) -> int:
        """Bytes of the records read and not finished."""
        return sum(claim.bytes_held for claim in self._claims.values())

    def _has_room_now(self) -> bool:
        return self.outstanding_bytes() < self._settings.max_unfinished_bytes

    async def _has_room(self, timeout: float) -> bool:
        try:
            async with asyncio.timeout(timeout):
                while not self._has_room_now():
                    self._progress.clear()
                    await self._progress.wait()
        except TimeoutError:
            return False
        return True

    async def commit(self) -> None:
        """Commit what is finished, in order, per partition.

        A commit that the group refuses (a rebalance is under way) is no error: the
        records are read again by whoever owns them next.
        """
        # Shielded: a transaction that is cut off in the middle leaves its producer of no more use.
        await asyncio.shield(asyncio.ensure_future(self._commit()))

    async def _commit(self) -> None:
        async with self._committing:
            await self._commit_finished()

    async def _commit_finished(self) -> None:
        positions = self._ledger.committable()
        if self._transactions is not None:
            await self._commit_in_transactions(self._transactions, positions)
        elif positions:
            await self._commit_to_group(positions)

    async def _commit_to_group(self, positions: dict[TopicPartition, int]) -> None:
        try:
            with refusals(topic=self._topic, setting=self._setting):
                await self._consumer.commit(dict(positions))
        except (CommitFailedError, IllegalStateError) as error:
            metrics.COMMITS.labels(self._pipeline, "refused").inc()
            log.warning("commit.refused", error=str(error))
            return
        except KafkaError as error:
            if not error.retriable:
                raise
            metrics.COMMITS.labels(self._pipeline, "retried").inc()
            log.warning("commit.failed", error=repr(error))
            return
        metrics.COMMITS.labels(self._pipeline, "done").inc()
        self._ledger.mark_committed(positions)

    async def _commit_in_transactions(
        self, transactions: Committer, positions: Mapping[TopicPartition, int]
    ) -> None:
        outcomes = await transactions.commit(positions)
        now = asyncio.get_running_loop().time()
        for partition, outcome in outcomes.items():
            if outcome is Committed.DONE:
                self._ledger.mark_committed({partition: positions[partition]})
                continue
            # A group that has thrown this worker out tells it at the next heartbeat, before it can fence
            # the new owner in turn. One that still counts on it hears nothing: then the claim is renewed.
            wait = self._settings.session_timeout * (1.0 if outcome is Committed.FENCED else 1 / 3)
            self._reclaim_at[partition] = now + wait
            self._give_up([partition])
        due = [p for p, at in self._reclaim_at.items() if at <= now]
        for partition in due:
            del self._reclaim_at[partition]
            if partition not in self._consumer.assignment():
                self._unclaimed.pop(partition, None)
        if mine := [p for p in due if p in self._consumer.assignment()]:
            log.warning("partitions.reclaimed", partitions=sorted(p.partition for p in mine))
            try:
                await self._claim(mine)
            except IllegalStateError:  # a rebalance took them meanwhile
                self._give_up(mine)

    async def commit_forever(self) -> None:
        """Commit at every interval, until cancelled."""
        while True:
            if self._transactions is not None:
                await self._transactions.due()
            else:
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

    async def lag(self, timeout: float) -> dict[TopicPartition, int] | None:
        """Records of each partition without an outcome; None where no broker answers in time."""
        unread = await lag_of(self._consumer, timeout)
        if unread is None:
            return None
        lag = {tp: count + self._ledger.outstanding([tp]) for tp, count in unread.items()}
        self._lag.show(lag)
        return lag

    async def _revoke(self, partitions: Sequence[TopicPartition]) -> None:
        metrics.REBALANCES.labels(self._pipeline).inc()
        if await self.drained(self._settings.drain_timeout, partitions):
            log.info("partitions.revoked", partitions=len(partitions))
        else:
            log.warning("partitions.given_up", unfinished=self._ledger.outstanding(partitions))
        await asyncio.shield(asyncio.ensure_future(self._hand_over(partitions)))
        self._lag.show({})

    async def _hand_over(self, partitions: Sequence[TopicPartition]) -> None:
        """Commit what is finished, then give the partitions away."""
        # One hold of the lock: a commit in between would open a transaction whose producer is closed in it.
        async with self._committing:
            await self._commit_finished()
            self._give_up(partitions)
            for partition in partitions:
                self._reclaim_at.pop(partition, None)
            if self._transactions is not None:
                await self._transactions.release(partitions)

    def _give_up(self, partitions: Iterable[TopicPartition]) -> None:
        """Work under these claims is dropped wherever it stands."""
        for partition in partitions:
            self._unclaimed.pop(partition, None)
            claim = self._claims.pop(partition, None)
            if claim is not None:
                claim.active = False
        self._ledger.release(partitions)
        self._progress.set()

    async def _claim(self, partitions: Sequence[TopicPartition]) -> None:
        starts: dict[TopicPartition, int] = {}
        if self._transactions is not None:
            try:
                await self._transactions.claim(partitions)
            except ConnectionFailedError as error:
                self._claim_later(partitions, error)
                return
            # Only now is the committed offset final: the consumer may have read an older one by itself.
            starts = await self._committed(partitions)
        # No await from here on: what is polled between a seek and its claim is dropped, and passed over.
        for partition, offset in starts.items():
            self._consumer.seek(partition, offset)
        for partition in partitions:
            self._unclaimed.pop(partition, None)
            self._claims[partition] = Claim(partition)
        self.joined = True
        log.info("partitions.assigned", partitions=sorted(p.partition for p in self._claims))

    def _claim_later(self, partitions: Sequence[TopicPartition], error: ConnectionFailedError) -> None:
        """Try again between heartbeats, for ``source.stall_limit`` at most."""
        now = asyncio.get_running_loop().time()
        since = min(self._unclaimed.setdefault(partition, now) for partition in partitions)
        if now - since > self._settings.stall_limit:
            raise error
        numbers = sorted(p.partition for p in partitions)
        log.warning("partitions.unclaimed", partitions=numbers, reason=str(error))
        self._reclaim_at |= dict.fromkeys(partitions, now + self._settings.session_timeout / 3)

    async def _committed(self, partitions: Sequence[TopicPartition]) -> dict[TopicPartition, int]:
        """Committed offsets, and the beginning where there is none."""
        known = {partition: await self._consumer.committed(partition) for partition in partitions}
        starts = {partition: offset for partition, offset in known.items() if offset is not None}
        if fresh := [partition for partition in partitions if partition not in starts]:
            starts |= await self._consumer.beginning_offsets(fresh)
        return starts


class _Listener(ConsumerRebalanceListener):  # type: ignore[misc]
    """aiokafka logs and swallows a listener's errors, so they are handed to ``poll``."""

    def __init__(self, source: KafkaSource) -> None:
        self._source = source

    async def on_partitions_revoked(self, revoked: Iterable[TopicPartition]) -> None:
        if revoked:
            await self._guard(self._source._revoke(list(revoked)))

    async def on_partitions_assigned(self, assigned: Iterable[TopicPartition]) -> None:
        await self._guard(self._source._claim(list(assigned)))

    async def _guard(self, work: Any) -> None:
        try:
            await work
        except Exception as error:
            if not self._source.failure.done():
                self._source.failure.set_exception(error)
            raise
