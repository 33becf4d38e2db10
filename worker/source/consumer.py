"""The consumer group that reads raw messages."""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from operator import attrgetter
from typing import Any

import structlog
from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener, TopicPartition
from aiokafka.errors import CommitFailedError, IllegalStateError, UnknownTopicOrPartitionError

from worker.errors import ConnectionFailedError
from worker.settings import KafkaSettings, SourceSettings, topic_setting
from worker.source.committing import Committed, Committer
from worker.source.header_names import escape_header_names
from worker.source.lag import lag_of
from worker.source.ledger import OffsetLedger
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
        metrics.RECORDS_LOST.labels(pipeline, "worker")
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
        self.topic_is_gone = False
        """Whether the last look at the lag has found no topic."""
        self.failure: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._kafka = kafka
        self._group = Group(
            settings.group_id,
            "traffic.group_id" if pipeline == "traffic" else "source.group_id",
            settings.session_timeout,
            "source.session_timeout",
        )
        self._rebalance_timeout = settings.drain_timeout + settings.session_timeout
        escape_header_names()
        self._consumer = AIOKafkaConsumer(
            group_id=settings.group_id,
            enable_auto_commit=False,
            isolation_level="read_committed",
            max_poll_interval_ms=int(settings.max_poll_interval * 1000),
            session_timeout_ms=int(settings.session_timeout * 1000),
            heartbeat_interval_ms=int(settings.session_timeout * 1000 / 3),
            # Its default is the session timeout: too short for a drain, and a member that
            # drains for longer than this is thrown out.
            rebalance_timeout_ms=int(self._rebalance_timeout * 1000),
            fetch_max_wait_ms=int(settings.fetch_max_wait * 1000),
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
            limits={
                "source.stall_limit": self._settings.stall_limit,
                # As long as the group waits for another member that drains, and to see that it lives.
                "source.drain_timeout": self._rebalance_timeout + self._settings.session_timeout,
            },
        )

    async def stop(self) -> None:
        """Commit what is finished and leave the group; a broker that is silent is not waited for."""
        await leave(
            self._consumer,
            # The last one: nothing would cover it, so only the deadline of the stop ends it.
            lambda: self.commit(seconds=None),
            self._settings.drain_timeout,
            event="source.stop_abandoned",
        )

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
            try:
                with refusals(topic=self._topic, setting=self._setting, group=self._group):
                    polled = await self._consumer.getmany(
                        timeout_ms=0 if records else int(timeout * 1000),
                        max_records=min(_SLICE, max_records - len(records)),
                    )
            except OUT_OF_PLACE as error:
                # With records in hand nothing is awaited: the next poll raises it again.
                if not records and not await self._place(positions_of(error)):
                    await asyncio.sleep(timeout)
                break
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

    async def _place(self, positions: Mapping[TopicPartition, int | None]) -> bool:
        """Read on from where there are records, and say what is lost or comes again.

        Args:
            positions: where nothing is to be read; None where no offset is committed.

        Returns:
            Whether any of them is ours and the broker has answered for it; else it is asked for again.
        """
        placed = False
        for partition, position in positions.items():
            claim = self._claims.get(partition)
            bounds = await bounds_of(self._consumer, partition) if claim is not None else None
            if claim is None or bounds is None or self._claims.get(partition) is not claim:
                continue
            placed = True
            oldest, end = bounds
            if position is None:
                self._begin_at(partition, oldest)
                self._consumer.seek(partition, oldest)
            elif position < oldest:
                report_lost(self._pipeline, "worker", partition, oldest - position, DROPPED)
                self._consumer.seek(partition, oldest)
                self._ledger.pass_over(partition, oldest)
            elif position > end:
                report_shorter(partition, position, oldest, end)
                await self._claim_anew(claim, oldest)
        return placed

    def _begin_at(self, partition: TopicPartition, oldest: int) -> None:
        """Commit where a log without a committed offset begins, where its first records are gone."""
        if oldest > 0:
            report_uncommitted(partition, oldest)
            self._ledger.pass_over(partition, oldest)  # else each start and rebalance would tell of it

    async def _claim_anew(self, claim: Claim, start: int) -> None:
        """Finish what was taken of a log that is another one now, as at a rebalance, and read this one."""
        partition = claim.partition
        await self.drained(self._settings.drain_timeout, [partition])
        async with self._committing:
            await self._commit_finished()
            if self._claims.get(partition) is not claim:
                return  # a rebalance or a transaction has taken it meanwhile
            if unfinished := self._ledger.outstanding([partition]):
                reason = "they were not classified within source.drain_timeout, and their log is gone"
                report_lost(self._pipeline, "worker", partition, unfinished, reason)
            self._give_up([partition])
            await self._claim([partition], start)

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

    async def commit(self, seconds: float | None = COMMIT_SECONDS) -> None:
        """Commit what is finished, in order, per partition.

        A commit that the group refuses (a rebalance is under way) is no error: the
        records are read again by whoever owns them next. Nor is one that no coordinator
        takes in time: the next one covers it.

        Args:
            seconds: in which the group has to take it; without end where None.
        """
        # Shielded: a transaction that is cut off in the middle leaves its producer of no more use.
        await asyncio.shield(asyncio.ensure_future(self._commit(seconds)))

    async def _commit(self, seconds: float | None) -> None:
        async with self._committing:
            await self._commit_finished(seconds)

    async def _commit_finished(self, seconds: float | None = COMMIT_SECONDS) -> None:
        positions = self._ledger.committable()
        if self._transactions is not None:
            await self._commit_in_transactions(self._transactions, positions)
        elif positions:
            await self._commit_to_group(positions, seconds)

    async def _commit_to_group(self, positions: dict[TopicPartition, int], seconds: float | None) -> None:
        try:
            # aiokafka tries again without end, and a revocation would wait behind it.
            async with asyncio.timeout(seconds):
                with refusals(topic=self._topic, setting=self._setting, group=self._group):
                    await self._consumer.commit(dict(positions))
        except (CommitFailedError, IllegalStateError) as error:
            metrics.COMMITS.labels(self._pipeline, "refused").inc()
            log.warning("commit.refused", error=str(error))
            return
        except TimeoutError:
            metrics.COMMITS.labels(self._pipeline, "retried").inc()
            log.warning("commit.failed", seconds=seconds, reason="no group coordinator has taken it")
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
        try:
            unread = await lag_of(self._consumer, self._topic, timeout)
        except UnknownTopicOrPartitionError:
            self.topic_is_gone, unread = True, {}
        else:
            self.topic_is_gone = False
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
            # The group waits twice as long after the drain, and what is not committed now comes again.
            await self._commit_finished(self._settings.session_timeout / 2)
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

    async def _claim(self, partitions: Sequence[TopicPartition], start: int | None = None) -> None:
        """Take partitions.

        Args:
            start: read them from there, whatever is committed, and commit that.
        """
        starts: dict[TopicPartition, int] = {} if start is None else dict.fromkeys(partitions, start)
        if self._transactions is not None:
            try:
                await self._transactions.claim(partitions)
            except ConnectionFailedError as error:
                self._claim_later(partitions, error)
                return
            if start is None:
                # Only now is the committed offset final: the consumer may have read an older one by itself.
                starts = await self._committed(partitions)
        # No await from here on: what is polled between a seek and its claim is dropped, and passed over.
        for partition, offset in starts.items():
            self._consumer.seek(partition, offset)
        for partition in partitions:
            self._unclaimed.pop(partition, None)
            self._claims[partition] = Claim(partition)
            if start is not None:
                self._ledger.pass_over(partition, start)
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
            oldest = await self._consumer.beginning_offsets(fresh)
            for partition, offset in oldest.items():
                self._begin_at(partition, offset)
            starts |= oldest
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
