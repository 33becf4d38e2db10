"""Signals of a topic projected into Redis, each counted once; knows no Kafka."""

import asyncio
import time
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import structlog

from schemas.aggregates import AggregateChange
from schemas.signals import CryptoSignal
from schemas.windows import MARKET
from worker.aggregates.apply import apply_command, key_names, partition_field, standing_fences
from worker.aggregates.buckets import CoinDelta, Partition, fold
from worker.aggregates.contribution import Contribution, RejectedSignalError, contribution
from worker.aggregates.keys import Keys
from worker.aggregates.repeats import RepeatWindow
from worker.aggregates.store import Command, RedisStore
from worker.errors import KbertError

log = structlog.get_logger(__name__)

Signal = Mapping[str, Any] | CryptoSignal
Records = Iterable[tuple[int, Signal]]
_Contributions = list[tuple[int, Contribution]]


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


@dataclass(slots=True)
class Applied:
    """What became of a batch."""

    records: int = 0
    repeats: int = 0
    """Records whose id stood on the partition before."""
    rejected: list[tuple[Partition, int, str]] = field(default_factory=list)
    """Partition, offset and reason of what is no crypto signal."""
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
            id_window: offsets per partition within which a repeated id is dropped.
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
        self._repeats: dict[Partition, RepeatWindow] = {}
        self._busy = asyncio.Lock()
        self._leaving: set[Partition] = set()

    async def check(self) -> None:
        """Try the script on a coin of its own, which leaves nothing: an ACL fails here, not in a batch.

        Raises:
            ConnectionFailedError: Redis does not answer.
            ConfigurationError: it refuses a command that is needed, or is (or is no) cluster.
        """
        await self._store.check()
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
        self, committed: Mapping[Partition, int | None], margin: int = 5_000
    ) -> dict[Partition, int]:
        """Learn the fences of partitions that this process now reads.

        Args:
            committed: next offset by Kafka's account, None where nothing was committed.
            margin: records to read again before that, to know repeats and heal lost writes.

        Returns:
            Offset to start from, per partition: ``margin`` before what both Kafka and the
            highest fence in Redis call done; 0 where Redis knows nothing.
        """
        async with self._busy:
            await self._learn(committed)
            starts = {}
            for partition, offset in committed.items():
                highest = max(self._fences[partition].values(), default=-1)
                starts[partition] = max(0, min(offset or 0, highest + 1) - margin)
            return starts

    def revoke(self, partitions: Collection[Partition]) -> None:
        """Forget partitions that another process reads now; a batch in work ends with them first."""
        self._leaving.update(partitions)
        if not self._busy.locked():
            self._leave()

    def _leave(self) -> None:
        for partition in self._leaving:
            self._fences.pop(partition, None)
            self._repeats.pop(partition, None)
        self._leaving.clear()

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
                await self._learn(unknown)
            result = Applied()
            try:
                records = {
                    partition: self._read(partition, rows, result) for partition, rows in batch.items()
                }
                await self._apply(records, result)
            finally:
                self._leave()
            return result

    def _read(self, partition: Partition, records: Records, result: Applied) -> _Contributions:
        repeats = self._repeats.setdefault(partition, RepeatWindow(self._id_window))
        contributions: _Contributions = []
        for offset, signal in records:
            result.records += 1
            try:
                read = contribution(signal, self._relevant_from)
            except RejectedSignalError as error:
                result.rejected.append((partition, offset, str(error)))
                continue
            if repeats.is_repeat(offset, read.id_hash):
                result.repeats += 1
            else:
                contributions.append((offset, read))
        return contributions

    async def _apply(self, batch: Mapping[Partition, _Contributions], result: Applied) -> None:
        deltas = fold(batch, self._fences)
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
                    changed.append(symbol)
                    self._believe(symbol, delta.fences)
                elif self._is_behind(symbol, standing):
                    raise DataLostError(await self._survey(batch))
                else:
                    self._believe(symbol, standing)
                    refused.append(symbol)
            deltas = fold(batch, self._fences, only=frozenset(refused)) if refused else {}
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

    async def _survey(self, batch: Mapping[Partition, _Contributions]) -> dict[Partition, int]:
        """Compare every fence with what this process knows, believe Redis, and say where to read from."""
        before = self._fences
        self._fences = {}
        await self._learn(before, symbols={symbol for known in before.values() for symbol in known})
        rewind = {partition: records[0][0] for partition, records in batch.items() if records}
        for partition, known in before.items():
            standing = self._fences[partition]
            lost = [
                standing.get(symbol, -1) + 1
                for symbol, fence in known.items()
                if standing.get(symbol, -1) < fence
            ]
            if lost:
                # The ids before the loss are read again as well: without them, what was dropped as
                # a repeat the first time would count now.
                oldest = max(0, min(lost) - self._id_window)
                rewind[partition] = min(oldest, rewind.get(partition, oldest))
        log.warning("aggregates.data_lost", rewind={partition_field(p): o for p, o in rewind.items()})
        return rewind

    async def _learn(self, partitions: Iterable[Partition], symbols: Iterable[str] = ()) -> None:
        """Read the fences of partitions for all coins that ever had a signal, and for ``symbols``."""
        wanted = list(partitions)
        (members,) = await self._store.run([("SMEMBERS", self._keys.coins)])
        self._registered = {member.decode() for member in members}
        names = sorted(self._registered.union(symbols, (MARKET,)))
        fields = [partition_field(partition) for partition in wanted]
        answers = (
            await self._store.run([("HMGET", self._keys.state(name), *fields) for name in names])
            if fields
            else []
        )
        for place, partition in enumerate(wanted):
            self._fences[partition] = {
                name: int(answer[place])
                for name, answer in zip(names, answers, strict=True)
                if answer[place] is not None
            }

    async def _register(self, symbols: Collection[str]) -> None:
        """Put new coins into the set of coins, before their first bucket: `_learn` relies on it."""
        new = sorted(set(symbols) - self._registered)
        if new:
            await self._store.run([("SADD", self._keys.coins, *new)])
            self._registered.update(new)

    async def _announce(self, symbols: list[str]) -> None:
        change = AggregateChange(symbols=symbols, at=datetime.now(UTC))
        command: Command = ("PUBLISH", self._keys.changes, change.model_dump_json())
        await self._store.run([command])
