"""Signals into Redis, and windows out of it."""

import asyncio
import random
import statistics
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any, Final
from uuid import uuid4

import orjson

from schemas.windows import MARKET
from worker.aggregates.contribution import Signal
from worker.aggregates.keys import Keys
from worker.aggregates.project import Aggregator
from worker.aggregates.reader import AggregateReader
from worker.aggregates.store import Command, RedisStore
from worker.benchmarks.machine import describe_host
from worker.benchmarks.traffic import BATCH, COINS, ZIPF, make_batches
from worker.embedded import EmbeddedRedis

_REPEATS: Final = 3
_READS: Final = 200
_PEER: Final = "one HINCRBY per field"
_SECONDS_OF_TRAFFIC: Final = 120
_SIGNALS_OF_THE_PAST: Final = 50_000
_SECONDS_OF_THE_PAST: Final = 8 * 86_400


def bench_aggregates(redis_url: str | None = None, signals: int = 100_000) -> dict[str, Any]:
    """Measure on an embedded Redis, or on a given one (under a prefix of its own, removed afterwards).

    Returns:
        ``signals_per_second`` (median of interleaved repeats) and ``read_ms``, medians:

        - ``apply``: parsed signals, batches of 5,000, until Redis has them
        - ``parse_and_apply``: the same from JSON bytes
        - ``apply_per_core_second``, ``parse_and_apply_per_core_second``: per second of this process's own
          CPU time
        - ``peers``: one HINCRBY for each field of each signal, pipelined, no fence; ``ratios``: ``apply``
          over it
        - ``read_ms``: all windows of one coin, coins by their share of traffic, after a week of
          traffic; ``read_all_ms``: one window of all coins
    """
    return asyncio.run(_bench(redis_url, signals))


async def _bench(redis_url: str | None, signals: int) -> dict[str, Any]:
    async with _server(redis_url) as url, RedisStore(url) as store:
        batches = make_batches(signals, _SECONDS_OF_TRAFFIC)
        past = make_batches(_SIGNALS_OF_THE_PAST, _SECONDS_OF_THE_PAST)
        ours, with_parsing, per_core, parsing_per_core, naive = [], [], [], [], []
        for _ in range(_REPEATS):
            async with _prefix(store) as prefix:
                seconds, cpu = await _apply(Aggregator(store, prefix=prefix), batches, parsed=True)
                ours.append(signals / seconds)
                per_core.append(signals / cpu)
            async with _prefix(store) as prefix:
                seconds, cpu = await _apply(Aggregator(store, prefix=prefix), batches)
                with_parsing.append(signals / seconds)
                parsing_per_core.append(signals / cpu)
            async with _prefix(store) as prefix:
                part = batches[: max(1, len(batches) // 10)]
                naive.append(sum(map(len, part)) / await _apply_naively(store, prefix, part))
        async with _prefix(store) as prefix:
            await _apply(Aggregator(store, prefix=prefix), past + batches)
            reader = AggregateReader(store, Keys(prefix))
            reads = [await _time(reader.coin(symbol)) for symbol in _symbols_to_read()]
            reads_of_all = [await _time(reader.window("1h")) for _ in range(10)]
    return {
        "machine": describe_host(),
        "signals": signals,
        "batch": BATCH,
        "signals_per_second": rates(ours, with_parsing, per_core, parsing_per_core, naive),
        "read_ms": round(statistics.median(reads) * 1_000, 3),
        "read_all_ms": round(statistics.median(reads_of_all) * 1_000, 3),
    }


def rates(
    ours: Sequence[float],
    with_parsing: Sequence[float],
    per_core: Sequence[float],
    parsing_per_core: Sequence[float],
    naive: Sequence[float],
) -> dict[str, Any]:
    """Medians of signals/s over the repeats, by the names that ``bench_aggregates`` gives them."""
    applied, peer = statistics.median(ours), statistics.median(naive)
    return {
        "apply": round(applied),
        "parse_and_apply": round(statistics.median(with_parsing)),
        "apply_per_core_second": round(statistics.median(per_core)),
        "parse_and_apply_per_core_second": round(statistics.median(parsing_per_core)),
        "peers": {_PEER: round(peer)},
        "ratios": {_PEER: round(applied / peer, 2)},
    }


async def _apply(
    aggregator: Aggregator, batches: Sequence[Sequence[bytes]], *, parsed: bool = False
) -> tuple[float, float]:
    """Seconds, and CPU seconds of this process, from JSON or from what was parsed of it beforehand."""
    seconds = cpu = 0.0
    offset = 0
    for batch in batches:
        signals: Sequence[Signal] = [orjson.loads(value) for value in batch] if parsed else batch
        start, cpu_start = time.perf_counter(), time.process_time()
        await aggregator.apply({("signals.crypto", 0): list(enumerate(signals, offset))})
        seconds += time.perf_counter() - start
        cpu += time.process_time() - cpu_start
        offset += len(batch)
    return seconds, cpu


async def _apply_naively(store: RedisStore, prefix: str, batches: list[list[bytes]]) -> float:
    """The usual way: every signal counts itself, field by field, in a minute and an hour hash."""
    applying = 0.0
    for batch in batches:
        records = [orjson.loads(value) for value in batch]
        start = time.perf_counter()
        commands: list[Command] = []
        for signal in records:
            seconds = int(datetime.fromisoformat(signal["published_at"]).timestamp())
            fields = [signal["sentiment_strength"], signal["action_signal"], *signal["emotions"]]
            weight = round(signal["certainty"] * signal["relevance"] * 1_000_000)
            for symbol in (*signal["coins"], MARKET):
                for bucket in (f"m:{seconds // 60}", f"h:{seconds // 3600}"):
                    key = f"{prefix}{{{symbol}}}:{bucket}"
                    commands += [("HINCRBY", key, name, 1) for name in ("messages", *fields)]
                    commands += [
                        ("HINCRBY", key, "weight", weight),
                        ("PFADD", f"{key}:u", signal["author_hash"]),
                    ]
        await store.run(commands)
        applying += time.perf_counter() - start
    return applying


async def _time(work: Any) -> float:
    start = time.perf_counter()
    await work
    return time.perf_counter() - start


def _symbols_to_read() -> list[str]:
    rng = random.Random(2)
    return rng.choices((MARKET, *COINS), weights=(1.0, *ZIPF), k=_READS)


@asynccontextmanager
async def _server(url: str | None) -> AsyncIterator[str]:
    if url is not None:
        yield url
        return
    async with EmbeddedRedis() as embedded:
        yield embedded.url


@asynccontextmanager
async def _prefix(store: RedisStore) -> AsyncIterator[str]:
    """A prefix of its own; its keys are removed afterwards."""
    prefix = f"bench-{uuid4().hex[:12]}:"
    try:
        yield prefix
    finally:
        keys = [key async for key in store.client.scan_iter(match=f"{prefix}*", count=1_000)]
        await store.run([("UNLINK", key) for key in keys])
