"""Traffic signals of a topic added to their months in Redis, each counted once; knows no Kafka."""

import asyncio
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from importlib.resources import files
from shlex import quote
from types import MappingProxyType
from typing import Any, Final

import structlog

from worker.aggregates.apply import partition_field
from worker.aggregates.buckets import Partition
from worker.aggregates.project import DataLostError, check_ends
from worker.aggregates.repeats import RepeatWindows
from worker.aggregates.store import Command, RedisStore, Script
from worker.narrative.keys import NarrativeKeys
from worker.narrative.sums import Contribution, RejectedSignalError, Sums, contribution
from worker.telemetry import metrics

log = structlog.get_logger(__name__)

APPLY: Final = Script(files("worker.narrative").joinpath("apply.lua").read_text("utf-8"))

Records = Iterable[tuple[int, bytes | Mapping[str, Any]]]
_FIRST_MONTH_KEY: Final = 3


@dataclass(slots=True)
class Applied:
    """What became of a batch."""

    records: int = 0
    repeats: int = 0
    """Records whose id stood before, on the partition or on another one that this process reads."""
    fence_skips: int = 0
    """Records at or below the fence."""
    rejected: list[tuple[Partition, int, str]] = field(default_factory=list)
    """Partition, offset and reason of what is no traffic signal."""
    stands: dict[Partition, int] = field(default_factory=dict)
    """Offset of each partition to commit: all below stands in Redis, also where it was read again."""


@dataclass(slots=True)
class _Read:
    last: int = -1
    contributions: list[tuple[int, Contribution]] = field(default_factory=list)


class NarrativeProjector:
    """Applies batches of signals, at least once in and exactly once counted.

    All months and the fence (the last applied offset per partition) change in one script, which
    refuses when the fence is not the one that this process believes: higher means that those offsets
    are applied already, lower that Redis lost data.
    """

    def __init__(
        self, store: RedisStore, *, prefix: str, id_window: int = 200_000, max_future: float = 60.0
    ) -> None:
        """Prepare.

        Args:
            store: the connection; the caller closes it.
            prefix: before every key.
            id_window: offsets of each partition within which a repeated id is dropped.
            max_future: as `contribution` has it.
        """
        self._store = store
        self._keys = NarrativeKeys(prefix)
        self._id_window = id_window
        self._max_future = max_future
        self._fences: dict[Partition, int | None] = {}
        self._repeats = RepeatWindows(id_window)
        self._lost: dict[Partition, int] = {}
        """First offset that Redis lost, until a record of the partition is read again."""
        self._busy = asyncio.Lock()
        self._leaving: set[Partition] = set()

    async def check(self) -> None:
        """Raise where Redis does not answer or refuses us."""
        await self._store.check(self._keys.prefix)

    async def assign(
        self,
        committed: Mapping[Partition, int | None],
        margin: int = 20_000,
        ends: Mapping[Partition, int] | None = None,
        oldest: Mapping[Partition, int] = MappingProxyType({}),
    ) -> dict[Partition, int]:
        """Learn the fences of new partitions, and say from which offset to read each.

        That is the id window (or ``margin``, where that is more) before what both Kafka and the fence call
        done: what is read again changes nothing, but tells which ids were there. Below ``oldest`` the topic
        has dropped the records, which is no loss of Redis.

        Raises:
            ConfigurationError: Redis has applied offsets that the topic never had, by ``ends``.
        """
        async with self._busy:
            await self._learn(committed)
            check_ends(
                {partition: self._next(partition) - 1 for partition in committed},
                ends or {},
                key=quote(self._keys.fences),
                kept="The months stay; never delete them: those older than the topic cannot be rebuilt.",
            )
            self._report_loss(committed, oldest)
            before = max(margin, self._id_window)
            return {
                partition: max(0, min(offset or 0, self._next(partition)) - before)
                for partition, offset in committed.items()
            }

    def applied(self, partition: Partition) -> int:
        """Next offset of an assigned partition by its fence; 0 where it has none."""
        return self._next(partition)

    def _report_loss(
        self, committed: Mapping[Partition, int | None], oldest: Mapping[Partition, int]
    ) -> None:
        """Tell of partitions of which Redis holds less than was committed: lost while nobody looked."""
        stands = {p: self._next(p) for p in committed}
        # Records that the topic dropped unread are committed as passed over, and no fence is behind them.
        held = {p: max(first, oldest.get(p, 0)) if first else 0 for p, first in stands.items()}
        lost = {p: stands[p] for p, offset in committed.items() if (offset or 0) > held[p]}
        if lost:
            self._lost |= lost
            metrics.PROJECTION_REWINDS.labels("narrative").inc()
            log.warning("narrative.data_lost", rewind={partition_field(p): o for p, o in lost.items()})

    def revoke(self, partitions: Collection[Partition]) -> None:
        """Forget partitions that another process reads now; a batch in work ends with them first."""
        self._leaving.update(partitions)
        if not self._busy.locked():
            self._leave()

    async def apply(self, batch: Mapping[Partition, Records]) -> Applied:
        """Apply records, in offset order per partition; returns when all stand in Redis.

        Waits as long as Redis does not answer. May be cancelled and called again with the same
        records: nothing counts twice.

        Raises:
            DataLostError: Redis lost data; go on from its ``rewind``.
            ConfigurationError: Redis refuses us.
        """
        async with self._busy:
            unknown = [partition for partition in batch if partition not in self._fences]
            if unknown:
                await self._learn(unknown)
            result = Applied()
            try:
                read = {partition: self._read(partition, rows, result) for partition, rows in batch.items()}
                await self._apply({partition: one for partition, one in read.items() if one.last >= 0})
                result.stands = {partition: self._next(partition) for partition in read}
            finally:
                self._leave()
            return result

    def _read(self, partition: Partition, records: Records, result: Applied) -> _Read:
        repeats = self._repeats.of(partition)
        read = _Read()
        for offset, signal in records:
            if self._lost and (lost := self._lost.pop(partition, offset)) < offset:
                # It is read from before the loss, for the ids: no record there is one that the topic lacks.
                log.warning(
                    "narrative.not_refilled",
                    partition=partition_field(partition),
                    lost_from=lost,
                    topic_begins=offset,
                    detail="The topic no longer holds these signals: their months stay incomplete, and can "
                    "be rebuilt only from the articles (kbert narrative build).",
                )
            result.records += 1
            read.last = offset
            below = offset < self._next(partition)
            result.fence_skips += below
            try:
                one = contribution(signal, self._max_future)
            except RejectedSignalError as error:
                # Its id stands nowhere, below the fence as above it: the article may come back corrected.
                if not below:
                    result.rejected.append((partition, offset, str(error)))
                continue
            if below:
                repeats.is_repeat(offset, one.id_hash)
            elif repeats.is_repeat(offset, one.id_hash):
                result.repeats += 1
            else:
                read.contributions.append((offset, one))
        return read

    async def _apply(self, batch: Mapping[Partition, _Read]) -> None:
        while True:
            todo = {
                partition: read for partition, read in batch.items() if read.last >= self._next(partition)
            }
            if not todo:
                return
            (answer,) = await self._store.run([self._command(todo)])
            if not answer:
                self._fences.update({partition: read.last for partition, read in todo.items()})
                return
            standing = {p: int(fence) if fence else None for p, fence in zip(todo, answer, strict=True)}
            if any(_after(fence) < self._next(partition) for partition, fence in standing.items()):
                oldest = {p: r.contributions[0][0] for p, r in todo.items() if r.contributions}
                raise DataLostError({**oldest, **await self._survey()})
            self._fences |= standing

    async def _survey(self) -> dict[Partition, int]:
        """Compare every fence with what this process knows, believe Redis, and say where to read from."""
        standing = await self._standing(self._fences)
        lost = {p: _after(fence) for p, fence in standing.items() if _after(fence) < self._next(p)}
        self._lost |= lost
        self._fences = standing  # last: cancelled before this, the next call finds the loss again
        # The ids before the loss are read again as well, or repeats of them would count.
        rewind = {partition: max(0, first - self._id_window) for partition, first in lost.items()}
        log.warning("narrative.data_lost", rewind={partition_field(p): o for p, o in rewind.items()})
        return rewind

    def _command(self, batch: Mapping[Partition, _Read]) -> Command:
        arguments: list[str | bytes | int] = [len(batch)]
        added: defaultdict[tuple[str, str], Sums] = defaultdict(Sums)
        for partition, read in batch.items():
            fence = self._fences[partition]
            arguments += (partition_field(partition), "" if fence is None else fence, read.last)
            for offset, one in read.contributions:
                if offset >= self._next(partition):
                    added[one.month, one.source] += one.sums
        names: dict[str, int] = {}
        for (month, source), sums in added.items():
            key = names.setdefault(self._keys.month(month), len(names) + _FIRST_MONTH_KEY)
            arguments += (key, month, source, sums.articles, sums.negatives, sums.probability)
        return APPLY.call([self._keys.fences, self._keys.months, *names], arguments)

    def _next(self, partition: Partition) -> int:
        return _after(self._fences[partition])

    def _leave(self) -> None:
        for partition in self._leaving:
            self._fences.pop(partition, None)
            self._lost.pop(partition, None)
            self._repeats.forget(partition)
        self._leaving.clear()

    async def _learn(self, partitions: Iterable[Partition]) -> None:
        self._fences |= await self._standing(partitions)

    async def _standing(self, partitions: Iterable[Partition]) -> dict[Partition, int | None]:
        """The fences in Redis."""
        wanted = list(partitions)
        if not wanted:
            return {}
        fields = [partition_field(partition) for partition in wanted]
        (fences,) = await self._store.run([("HMGET", self._keys.fences, *fields)])
        return {p: None if fence is None else int(fence) for p, fence in zip(wanted, fences, strict=True)}


def _after(fence: int | None) -> int:
    return 0 if fence is None else fence + 1
