"""Traffic signals of a topic added to their months in Redis, each counted once; knows no Kafka."""

import asyncio
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from importlib.resources import files
from typing import Any, Final

from worker.aggregates.apply import partition_field
from worker.aggregates.buckets import Partition
from worker.aggregates.contribution import identity
from worker.aggregates.project import DataLostError, made_anew
from worker.aggregates.repeats import RepeatWindow
from worker.aggregates.store import Command, RedisStore, Script
from worker.narrative.keys import NarrativeKeys
from worker.narrative.sums import Contribution, RejectedSignalError, Sums, contribution

APPLY: Final = Script(files("worker.narrative").joinpath("apply.lua").read_text("utf-8"))

Records = Iterable[tuple[int, bytes | Mapping[str, Any]]]
_FIRST_MONTH_KEY: Final = 3


@dataclass(slots=True)
class Applied:
    """What became of a batch."""

    records: int = 0
    repeats: int = 0
    """Records whose id stood on the partition before."""
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

    def __init__(self, store: RedisStore, *, prefix: str, id_window: int = 200_000) -> None:
        """Prepare.

        Args:
            store: the connection; the caller closes it.
            prefix: before every key.
            id_window: offsets per partition within which a repeated id is dropped.
        """
        self._store = store
        self._keys = NarrativeKeys(prefix)
        self._id_window = id_window
        self._fences: dict[Partition, int | None] = {}
        self._repeats: dict[Partition, RepeatWindow] = {}
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
    ) -> dict[Partition, int]:
        """Learn the fences of new partitions, and say from which offset to read each.

        That is the id window (or ``margin``, where that is more) before what both Kafka and the fence call
        done: what is read again changes nothing, but tells which ids were there.

        Raises:
            ConfigurationError: Redis has applied offsets that the topic never had, by ``ends``.
        """
        async with self._busy:
            await self._learn(committed)
            for partition, end in (ends or {}).items():
                if self._next(partition) > end:
                    raise made_anew(partition, self._next(partition) - 1, end, self._keys.prefix)
            before = max(margin, self._id_window)
            return {
                partition: max(0, min(offset or 0, self._next(partition)) - before)
                for partition, offset in committed.items()
            }

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
        repeats = self._repeats.setdefault(partition, RepeatWindow(self._id_window))
        read = _Read()
        for offset, signal in records:
            result.records += 1
            read.last = offset
            if offset < self._next(partition):
                known = identity(signal)
                if known is not None:
                    repeats.is_repeat(offset, known)
                result.fence_skips += 1
                continue
            try:
                one = contribution(signal)
            except RejectedSignalError as error:
                result.rejected.append((partition, offset, str(error)))
                continue
            if repeats.is_repeat(offset, one.id_hash):
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
            rewind = {}
            for partition, fence in zip(todo, answer, strict=True):
                standing = int(fence) + 1 if fence else 0
                if standing < self._next(partition):
                    # The ids before the loss are read again as well, or repeats of them would count.
                    rewind[partition] = max(0, standing - self._id_window)
                self._fences[partition] = standing - 1 if standing else None
            if rewind:
                oldest = {p: r.contributions[0][0] for p, r in todo.items() if r.contributions}
                raise DataLostError({**oldest, **rewind})

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
        fence = self._fences[partition]
        return 0 if fence is None else fence + 1

    def _leave(self) -> None:
        for partition in self._leaving:
            self._fences.pop(partition, None)
            self._repeats.pop(partition, None)
        self._leaving.clear()

    async def _learn(self, partitions: Iterable[Partition]) -> None:
        wanted = list(partitions)
        if not wanted:
            return
        fields = [partition_field(partition) for partition in wanted]
        (fences,) = await self._store.run([("HMGET", self._keys.fences, *fields)])
        for partition, fence in zip(wanted, fences, strict=True):
            self._fences[partition] = None if fence is None else int(fence)
