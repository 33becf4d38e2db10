"""Signals of a topic projected into Redis, each counted once; knows no Kafka."""

import asyncio
import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from shlex import quote
from types import MappingProxyType
from typing import Final
from uuid import uuid4

import structlog

from schemas.aggregates import AggregateChange
from schemas.windows import MARKET
from worker.aggregates.apply import apply_command, key_names, partition_field, standing_fences
from worker.aggregates.buckets import CoinDelta, Partition, fold
from worker.aggregates.contribution import (
    Contribution,
    RejectedSignalError,
    Signal,
    contribution,
)
from worker.aggregates.keys import Keys
from worker.aggregates.repeats import RepeatWindows
from worker.aggregates.store import Command, RedisStore
from worker.errors import ConfigurationError, KbertError
from worker.telemetry import metrics

log = structlog.get_logger(__name__)

_UNCOUNTED: Final = 5_000  # first records of a partition that no coin and not MARKET counts: never so many

Records = Sequence[tuple[int, Signal]]
"""Offsets and signals of one partition, in offset order."""


class DataLostError(KbertError):
    """Redis holds less than this process knows to have applied: read again from ``rewind``.

    A failover lost its last writes, or the server came back empty. Every partition of the
    batch in hand is named too, since a part of it may not have been applied.
    """

    def __init__(self, rewind: Mapping[Partition, int]) -> None:
        self.rewind = dict(rewind)
        """Offset to read from, per partition; lower than the oldest record there means the oldest."""
        places = ", ".join(f"{topic}:{number} from {offset}" for (topic, number), offset in rewind.items())
        super().__init__(f"Redis lost applied signals; read again {places}.")


def check_ends(
    applied: Mapping[Partition, int], ends: Mapping[Partition, int], *, key: str, each: str = "", kept: str
) -> None:
    """Refuse partitions that end before what Redis has applied of them.

    Every new record would be below its fence, and skipped without a word. A topic that was made anew
    counts from 0 once its fences are gone; without them, one whose end the broker lost would count again.

    Args:
        applied: last applied offset of each partition, -1 for none.
        ends: next offset that the broker will give.
        key: hash of the fences, as a shell reads it.
        each: what runs the command for every such key, where there are several.
        kept: what becomes of the sums, for the sentence.

    Raises:
        ConfigurationError: there are such partitions; names them and both commands.
    """
    beyond = [partition for partition in ends if applied[partition] >= ends[partition]]
    if not beyond:
        return
    places = ", ".join(f"{partition_field(p)} ends at {ends[p]}, applied up to {applied[p]}" for p in beyond)
    fields = " ".join(partition_field(p) for p in ends)
    pairs = " ".join(f"{partition_field(p)} {ends[p] - 1}" for p in beyond)
    raise ConfigurationError(
        f"The topic ends before what Redis has applied ({places}): it was made anew, or the broker lost its "
        f"end. If it was made anew, `{each}redis-cli HDEL {key} {fields}` lets it count from offset 0; "
        f"if its end was lost, `{each}redis-cli HSET {key} {pairs}` goes on from there. Stop all that write "
        "there first; redis-cli has to be told the server and database of redis.url (-u), in a cluster each "
        f"of its masters. {kept}"
    )


@dataclass(slots=True)
class Applied:
    """What became of a batch."""

    records: int = 0
    repeats: int = 0
    """Records whose id stood before, on the partition or on another one that this process reads."""
    fence_skips: int = 0
    """Records read again that every coin they name has already."""
    rejected: list[tuple[Partition, int, str]] = field(default_factory=list)
    """Partition, offset and reason of what is no crypto signal."""
    stands: dict[Partition, int] = field(default_factory=dict)
    """Offset of each partition to commit: all below stands in Redis, also where it was read again."""
    symbols: list[str] = field(default_factory=list)
    """Coins (and MARKET) that changed."""


class Aggregator:
    """Applies batches of signals, at least once in and exactly once counted.

    Each coin's buckets and its fence (the last applied offset per partition) change in
    one script, which refuses when the fence is not the one that this process believes.
    A higher fence says that those offsets are applied, by us (the answer was lost) or
    by another: they are left out and the rest is tried again. A lower one says that
    Redis lost data.
    """

    def __init__(
        self, store: RedisStore, *, prefix: str, relevant_from: float = 0.4, id_window: int = 50_000
    ) -> None:
        """Prepare.

        Args:
            store: the connection; the caller closes it.
            prefix: before every key.
            relevant_from: relevance from which MARKET counts a signal.
            id_window: offsets of each partition within which a repeated id is dropped.
        """
        self._store = store
        self._keys = Keys(prefix)
        self._relevant_from = relevant_from
        self._id_window = id_window
        # Always complete for the partitions it holds: a coin without a fence here never had one. If it
        # were a mere cache, a coin not seen since start would be applied to an empty Redis as if it were
        # new, and the rewind that follows would skip its history.
        self._fences: dict[Partition, dict[str, int]] = {}
        self._registered: set[str] = set()
        self._repeats = RepeatWindows(id_window)
        # Below this (less the margin) a record is read for its id alone. The fences do not tell: a repeat
        # that was dropped lies above the fence of a coin that nobody has named since, and its first record
        # may lie before what is read again.
        self._stands: dict[Partition, int] = {}
        self._margin = 0
        self._busy = asyncio.Lock()
        self._leaving: set[Partition] = set()

    async def check(self) -> None:
        """Try the script on a coin of its own, which leaves nothing: an ACL fails here, not in a batch.

        Raises:
            ConnectionFailedError: Redis does not answer.
            ConfigurationError: it refuses a command that is needed, or is (or is no) cluster.
        """
        await self._store.check(self._keys.prefix)
        symbol, partition = f"check-{uuid4().hex[:16]}", ("check", 0)
        minute = int(time.time()) // 60
        sample = Contribution(0, (symbol,), minute, True, (0,), 0, 0, 0, 0, 0, minute * 60_000, "author")
        delta = fold({partition: [(0, sample)]}, {})[symbol]
        command = apply_command(self._keys, symbol, delta, {})
        try:
            await self._store.once([command])
        finally:
            await self._store.once([("DEL", *key_names(command))])

    async def assign(
        self,
        committed: Mapping[Partition, int | None],
        margin: int = 5_000,
        ends: Mapping[Partition, int] | None = None,
        oldest: Mapping[Partition, int] = MappingProxyType({}),
    ) -> dict[Partition, int]:
        """Learn the fences of partitions that this process now reads.

        Args:
            committed: next offset by Kafka's account, None where nothing was committed.
            margin: records before that which are applied again where their fences lack them: a crash in a
                batch, or a failover, may have left it applied to some of its coins only.
            ends: next offset that the broker will give, where known.
            oldest: first record that is still there; what the topic has dropped is no loss of Redis.

        Returns:
            Offset to start from, per partition: ``margin`` before what both Kafka and the highest fence
            in Redis call done, and the id window before that, to know repeats; 0 where Redis knows nothing.

        Raises:
            ConfigurationError: Redis has applied offsets that the topic never had.
        """
        async with self._busy:
            self._leave()
            self._fences |= await self._standing(committed)
            self._margin = margin
            highest = {p: self.applied(p) - 1 for p in committed}
            check_ends(
                highest,
                ends or {},
                each=f"redis-cli --scan --pattern {quote(self._keys.state('*'))} | xargs -I KEY ",
                key="KEY",
                kept="What is summed stays; another redis.prefix (KBERT_REDIS__PREFIX) starts empty.",
            )
            for partition, offset in committed.items():
                self._stands[partition] = min(offset or 0, highest[partition] + 1)
            self._report_loss(committed, oldest)
            return {partition: self._start(self._stands[partition]) for partition in committed}

    def applied(self, partition: Partition) -> int:
        """Next offset of an assigned partition by its highest fence; 0 where it has none."""
        return max(self._fences.get(partition, {}).values(), default=-1) + 1

    def _report_loss(
        self, committed: Mapping[Partition, int | None], oldest: Mapping[Partition, int]
    ) -> None:
        """Tell of partitions of which Redis holds far less than was committed: lost while nobody looked."""
        lost: dict[str, int] = {}
        for partition, offset in committed.items():
            stands = self._stands[partition]
            # What counts nowhere moves no fence, and repeats of a whole id window count nowhere; nor does
            # what the topic dropped unread, up to its oldest record.
            passed = oldest.get(partition, 0) if stands else 0
            held = max(stands, passed) if (offset or 0) - passed <= _UNCOUNTED else stands
            if (offset or 0) - held > (self._margin + self._id_window if stands else _UNCOUNTED):
                lost[partition_field(partition)] = stands
        if lost:
            metrics.PROJECTION_REWINDS.labels("aggregates").inc()
            log.warning("aggregates.data_lost", rewind=lost)

    def revoke(self, partitions: Collection[Partition]) -> None:
        """Forget partitions that another process reads now; a batch in work ends with them first."""
        self._leaving.update(partitions)
        if not self._busy.locked():
            self._leave()

    def _leave(self) -> None:
        for partition in self._leaving:
            self._fences.pop(partition, None)
            self._repeats.forget(partition)
            self._stands.pop(partition, None)
        self._leaving.clear()

    def _start(self, stands: int) -> int:
        """Where to read from, so that the repeats of all that may still count are known."""
        return max(0, stands - self._margin - self._id_window)

    async def apply(self, batch: Mapping[Partition, Records]) -> Applied:
        """Apply records, in offset order per partition; returns when all stand in Redis.

        Waits as long as Redis does not answer. May be cancelled and called again with
        the same records, or with records that were applied before: nothing counts twice.

        Raises:
            DataLostError: Redis lost data; go on from its ``rewind``.
            ConfigurationError: Redis refuses us.
        """
        async with self._busy:
            unknown = [partition for partition in batch if partition not in self._fences]
            if unknown:
                self._fences |= await self._standing(unknown)
            result = Applied()
            try:
                await self._apply(batch, result)
                for partition, records in batch.items():
                    if records:
                        stands = max(self._stands.get(partition, 0), records[-1][0] + 1)
                        self._stands[partition] = result.stands[partition] = stands
            finally:
                self._leave()
            return result

    def _read(
        self, partition: Partition, records: Records, result: Applied, left_out: set[int]
    ) -> Iterator[tuple[int, Contribution]]:
        """Read records for the first time, noting in ``left_out`` what does not count."""
        repeats = self._repeats.of(partition)
        result.records += len(records)
        fences = self._fences[partition]
        highest = max(fences.values(), default=-1)
        counted_from = self._stands.get(partition, 0) - self._margin
        for offset, signal in records:
            if offset < counted_from:
                # What was rejected has no place among the ids: the signal may come back corrected.
                with suppress(RejectedSignalError):
                    repeats.is_repeat(offset, contribution(signal, self._relevant_from).id_hash)
                result.fence_skips += 1
                left_out.add(offset)
                continue
            try:
                read = contribution(signal, self._relevant_from)
            except RejectedSignalError as error:
                left_out.add(offset)
                result.rejected.append((partition, offset, str(error)))
                continue
            if repeats.is_repeat(offset, read.id_hash):
                result.repeats += 1
                left_out.add(offset)
                if repeats.came_elsewhere(offset):
                    yield offset, _passed(read)
            else:
                if offset <= highest and all(fences.get(symbol, -1) >= offset for symbol in read.symbols):
                    result.fence_skips += 1
                yield offset, read

    def _read_again(
        self, partition: Partition, records: Records, left_out: set[int]
    ) -> Iterator[tuple[int, Contribution]]:
        repeats = self._repeats.of(partition)
        for offset, signal in records:
            if offset not in left_out:
                yield offset, contribution(signal, self._relevant_from)
            elif repeats.came_elsewhere(offset):
                yield offset, _passed(contribution(signal, self._relevant_from))

    async def _apply(self, batch: Mapping[Partition, Records], result: Applied) -> None:
        left_out: dict[Partition, set[int]] = {partition: set() for partition in batch}
        # Each contribution is summed and gone: kept in a list, 5,000 of them made the garbage collector
        # take a third of the time.
        deltas = fold(
            {p: self._read(p, records, result, left_out[p]) for p, records in batch.items()}, self._fences
        )
        await self._register(deltas)
        changed: list[str] = []
        while deltas:
            commands = [
                apply_command(self._keys, symbol, delta, self._expected(symbol, delta))
                for symbol, delta in deltas.items()
            ]
            answers = await self._store.run(commands)
            refused: list[str] = []
            for (symbol, delta), answer in zip(deltas.items(), answers, strict=True):
                standing = standing_fences(answer, delta)
                if standing is None:
                    if delta.hours:
                        changed.append(symbol)
                    self._believe(symbol, delta.fences)
                elif self._is_behind(symbol, standing):
                    raise DataLostError(await self._survey(batch))
                else:
                    self._believe(symbol, standing)
                    refused.append(symbol)
            if not refused:
                break
            deltas = fold(
                {p: self._read_again(p, records, left_out[p]) for p, records in batch.items()},
                self._fences,
                only=frozenset(refused),
            )
        if changed:
            result.symbols = sorted(changed)
            await self._announce(result.symbols)

    def _expected(self, symbol: str, delta: CoinDelta) -> dict[Partition, int]:
        return {
            partition: fence
            for partition in delta.fences
            if (fence := self._fences[partition].get(symbol)) is not None
        }

    def _believe(self, symbol: str, fences: Mapping[Partition, int | None]) -> None:
        for partition, fence in fences.items():
            if fence is None:
                self._fences[partition].pop(symbol, None)
            else:
                self._fences[partition][symbol] = fence

    def _is_behind(self, symbol: str, standing: Mapping[Partition, int | None]) -> bool:
        return any(
            (-1 if fence is None else fence) < self._fences[partition].get(symbol, -1)
            for partition, fence in standing.items()
        )

    async def _survey(self, batch: Mapping[Partition, Records]) -> dict[Partition, int]:
        """Compare every fence with what this process knows, believe Redis, and say where to read from."""
        before = self._fences
        standing = await self._standing(before, {symbol for known in before.values() for symbol in known})
        rewind = {partition: records[0][0] for partition, records in batch.items() if records}
        for partition, known in before.items():
            stands = standing[partition]
            lost = [
                stands.get(symbol, -1) + 1
                for symbol, fence in known.items()
                if stands.get(symbol, -1) < fence
            ]
            if lost:
                # The ids before the loss are read again as well: without them, what was dropped as
                # a repeat the first time would count now.
                before_loss = min(*lost, self._stands.get(partition, rewind.get(partition, lost[0])))
                self._stands[partition] = before_loss
                oldest = self._start(before_loss)
                rewind[partition] = min(oldest, rewind.get(partition, oldest))
        self._fences = standing  # last: cancelled before this, the next call finds the loss again
        log.warning("aggregates.data_lost", rewind={partition_field(p): o for p, o in rewind.items()})
        return rewind

    async def _standing(
        self, partitions: Iterable[Partition], symbols: Iterable[str] = ()
    ) -> dict[Partition, dict[str, int]]:
        """The fences in Redis, of all coins that ever had a signal and of ``symbols``."""
        wanted = list(partitions)
        (members,) = await self._store.run([("SMEMBERS", self._keys.coins)])
        self._registered = {member.decode() for member in members}
        if not wanted:
            return {}
        names = sorted(self._registered.union(symbols, (MARKET,)))
        fields = [partition_field(partition) for partition in wanted]
        answers = await self._store.run([("HMGET", self._keys.state(name), *fields) for name in names])
        return {
            partition: {
                name: int(answer[place])
                for name, answer in zip(names, answers, strict=True)
                if answer[place] is not None
            }
            for place, partition in enumerate(wanted)
        }

    async def _register(self, symbols: Collection[str]) -> None:
        """Put new coins into the set of coins, before their first bucket: `_standing` relies on it."""
        new = sorted(set(symbols) - self._registered)
        if new:
            await self._store.run([("SADD", self._keys.coins, *new)])
            self._registered.update(new)

    async def _announce(self, symbols: list[str]) -> None:
        change = AggregateChange(symbols=symbols, at=datetime.now(UTC))
        command: Command = ("PUBLISH", self._keys.changes, change.model_dump_json())
        await self._store.run([command])


def _passed(read: Contribution) -> Contribution:
    """A repeat of another partition, which moves the fences and adds nothing.

    After a restart it may be read before its original, and would count if its fences did not tell.
    """
    return read._replace(columns=())
