"""The call of apply.lua: arguments of one coin, and what its answer means."""

import struct
import time
from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import Any, Final

from worker.aggregates.buckets import COLUMNS, HOURS_A_DAY, MINUTES_AN_HOUR, ROW, CoinDelta, Partition
from worker.aggregates.contribution import HOUR_BUCKETS_MS, MINUTE_BUCKETS_MS
from worker.aggregates.keys import Keys
from worker.aggregates.store import Command, Script

APPLY: Final = Script(files("worker.aggregates").joinpath("apply.lua").read_text("utf-8"))

_ENTRY: Final = struct.Struct("<IIq")
"""Head of a bucket or of a set of authors, as apply.lua reads it: key index, offset or length, expiry."""

_MINUTE: Final = 60
_HOUR: Final = 3_600
_DAY: Final = 86_400
_MINUTE_BUCKETS: Final = MINUTE_BUCKETS_MS // 1_000
_HOUR_BUCKETS: Final = HOUR_BUCKETS_MS // 1_000
_CLOCK_DIFFERENCE: Final = 3_600
"""Seconds that the clock of Redis may be behind ours; what expired longer ago is not sent."""


def apply_command(
    keys: Keys, symbol: str, delta: CoinDelta, expected: Mapping[Partition, int], now: float | None = None
) -> Command:
    """EVALSHA of one coin's batch.

    Args:
        keys: key names.
        symbol: the coin.
        delta: what to add; closed.
        expected: fences that this process believes to stand, per partition; absent for none.
        now: seconds since 1970.
    """
    horizon = (time.time() if now is None else now) - _CLOCK_DIFFERENCE
    names: dict[str, int] = {keys.state(symbol): 1}
    arguments: list[str | int | bytes] = [len(delta.fences)]
    for partition, fence in delta.fences.items():
        arguments += (partition_field(partition), expected.get(partition, ""), fence)
    arguments += ("", "") if delta.first is None or delta.newest is None else (delta.first, delta.newest)

    buckets: list[bytes] = []
    for minute, row in delta.minutes.items():
        hour, place = divmod(minute, MINUTES_AN_HOUR)
        expiry = (hour + 1) * _HOUR + _MINUTE_BUCKETS
        if expiry > horizon:
            key = names.setdefault(keys.minutes(symbol, hour), len(names) + 1)
            buckets += (_ENTRY.pack(key, place * ROW.size, expiry), ROW.pack(*row))
    for hour, row in delta.hours.items():
        day, place = divmod(hour, HOURS_A_DAY)
        expiry = (day + 1) * _DAY + _HOUR_BUCKETS
        if expiry > horizon:
            key = names.setdefault(keys.hours(symbol, day), len(names) + 1)
            buckets += (_ENTRY.pack(key, place * ROW.size, expiry), ROW.pack(*row))

    authors: list[bytes] = []
    for minute, hashes in delta.minute_authors.items():
        expiry = (minute + 1) * _MINUTE + _MINUTE_BUCKETS
        if expiry > horizon:
            key = names.setdefault(keys.minute_authors(symbol, minute), len(names) + 1)
            joined = " ".join(hashes).encode()
            authors += (_ENTRY.pack(key, len(joined), expiry), joined)
    for hour, hashes in delta.hour_authors.items():
        expiry = (hour + 1) * _HOUR + _HOUR_BUCKETS
        if expiry > horizon:
            key = names.setdefault(keys.hour_authors(symbol, hour), len(names) + 1)
            joined = " ".join(hashes).encode()
            authors += (_ENTRY.pack(key, len(joined), expiry), joined)
    arguments += (b"".join(buckets), b"".join(authors))
    return APPLY.call(list(names), arguments)


def key_names(command: Command) -> list[str]:
    """The keys that an `apply_command` declares."""
    count = int(command[2])
    return [str(name) for name in command[3 : 3 + count]]


def standing_fences(answer: Sequence[Any], delta: CoinDelta) -> dict[Partition, int | None] | None:
    """None when the batch was applied; else the fences that stand in Redis, None for no fence."""
    if not answer:
        return None
    return {
        partition: int(fence) if fence else None
        for partition, fence in zip(delta.fences, answer, strict=True)
    }


def partition_field(partition: Partition) -> str:
    """Name of a partition's fence in the state of a coin."""
    return f"{partition[0]}:{partition[1]}"


assert COLUMNS == 26  # noqa: S101 - apply.lua says so too
