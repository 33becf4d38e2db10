"""Each signal counts once, whatever happens between the aggregator and Redis."""

import asyncio
import random
import shlex
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from redis.asyncio import Redis

from schemas.windows import MARKET
from tests.proxies import LosingProxy
from tests.recount import RELEVANT_FROM, Recount
from tests.signals import make_signal, make_week
from tests.waiting import eventually
from worker.aggregates.keys import Keys
from worker.aggregates.project import Aggregator, DataLostError
from worker.aggregates.reader import AggregateReader
from worker.aggregates.store import RedisStore
from worker.embedded import EmbeddedRedis
from worker.errors import ConfigurationError

Partition = tuple[str, int]
Log = dict[Partition, list[dict[str, Any]]]
"""A topic: the records of each partition, the offset of each its place in the list."""

NOW = datetime.now(UTC)


def make_log(count: int = 600, partitions: int = 2, seed: int = 1) -> Log:
    log: Log = {("signals", n): [] for n in range(partitions)}
    rng = random.Random(seed)
    for signal in make_week(NOW, count, seed):
        log[rng.choice(list(log))].append(signal)
    return log


async def consume(
    aggregator: Aggregator, log: Log, start: dict[Partition, int] | None = None, size: int = 50
) -> int:
    """Apply the log from ``start`` to its end as a consumer does; how often Redis had lost data."""
    position = dict.fromkeys(log, 0) | (start or {})
    rewinds = 0
    while any(position[p] < len(log[p]) for p in log):
        batch = {p: list(enumerate(log[p]))[position[p] : position[p] + size] for p in log}
        try:
            await aggregator.apply({p: records for p, records in batch.items() if records})
        except DataLostError as lost:
            position |= lost.rewind
            rewinds += 1
        else:
            position = {p: position[p] + len(records) for p, records in batch.items()}
    return rewinds


async def check(url: str, prefix: str, log: Log) -> None:
    """Everything in Redis equals a recount of the log."""
    recount = Recount((signal for records in log.values() for signal in records), NOW)
    async with RedisStore(url) as store:
        reader = AggregateReader(store, Keys(prefix))
        symbols = [MARKET, *await reader.coins()]
        assert set(symbols) == recount.symbols
        found = {symbol: await reader.coin(symbol, NOW) for symbol in symbols}
    recount.check_all({symbol: coin.windows for symbol, coin in found.items()})
    for symbol, coin in found.items():
        assert coin.freshness == pytest.approx(recount.freshness(symbol), abs=0.002)


async def contents(url: str, prefix: str) -> dict[bytes, bytes | None]:
    """Every key and its value, as Redis dumps them."""
    async with Redis.from_url(url) as client:
        keys = [key async for key in client.scan_iter(match=f"{prefix}*")]
        return {key: await client.dump(key) for key in sorted(keys)}


def aggregator(store: RedisStore, prefix: str = "kbert:", **options: Any) -> Aggregator:
    return Aggregator(store, prefix=prefix, relevant_from=RELEVANT_FROM, **options)


@pytest.fixture
async def server() -> AsyncIterator[EmbeddedRedis]:
    """A server of the test's own, to be killed and frozen."""
    async with EmbeddedRedis() as redis:
        yield redis


class CountingStore(RedisStore):
    """Counts calls, so that a test can wait until one was tried."""

    calls = 0

    async def _pipeline(self, commands: Sequence[Any]) -> list[Any]:
        self.calls += 1
        return await super()._pipeline(commands)


@pytest.mark.parametrize("seed", range(4))
async def test_windows_equal_a_recount(redis_url: str, redis_prefix: str, seed: int) -> None:
    log = make_log(seed=seed)
    async with RedisStore(redis_url) as store:
        await consume(aggregator(store, redis_prefix), log, size=(1, 7, 90, 1_000)[seed])
    await check(redis_url, redis_prefix, log)


async def test_a_replay_of_everything_changes_no_number(redis_url: str, redis_prefix: str) -> None:
    log = make_log()
    async with RedisStore(redis_url) as store:
        once = aggregator(store, redis_prefix)
        await consume(once, log)
        before = await contents(redis_url, redis_prefix)
        await consume(once, log)
        await consume(aggregator(store, redis_prefix), log, size=333)
    assert await contents(redis_url, redis_prefix) == before
    await check(redis_url, redis_prefix, log)


async def test_batches_that_overlap_count_once(redis_url: str, redis_prefix: str) -> None:
    log = make_log()
    rng = random.Random(3)
    async with RedisStore(redis_url) as store:
        readers = [aggregator(store, redis_prefix) for _ in range(3)]
        for partition, records in log.items():
            rows = list(enumerate(records))
            done = 0
            while done < len(rows):
                start = rng.randint(max(0, done - 40), done)
                stop = min(len(rows), done + rng.randint(0, 40))
                await rng.choice(readers).apply({partition: rows[start:stop]})
                done = max(done, stop)
    await check(redis_url, redis_prefix, log)


async def test_zombies_that_apply_at_the_same_time_count_once(redis_url: str, redis_prefix: str) -> None:
    log = make_log()
    async with RedisStore(redis_url) as one, RedisStore(redis_url) as two, RedisStore(redis_url) as three:
        await asyncio.gather(
            consume(aggregator(one, redis_prefix), log, size=11),
            consume(aggregator(two, redis_prefix), log, size=13),
            consume(aggregator(three, redis_prefix), log, size=170),
        )
    await check(redis_url, redis_prefix, log)


async def test_a_repeated_id_counts_once(redis_url: str, redis_prefix: str) -> None:
    log = make_log(200, partitions=1)
    (partition,) = log
    twice: Log = {partition: [copy for signal in log[partition] for copy in (signal, signal)]}
    async with RedisStore(redis_url) as store:
        result = await aggregator(store, redis_prefix).apply({partition: list(enumerate(twice[partition]))})
        # A restart between a signal and its repeat: what is read again tells the ids.
        await aggregator(store, redis_prefix).apply({partition: list(enumerate(twice[partition]))})
        again = [*enumerate(twice[partition]), (1_000, log[partition][-1])]
        assert (await aggregator(store, redis_prefix).apply({partition: again})).symbols == []
    assert result.repeats == 200
    await check(redis_url, redis_prefix, log)


@pytest.mark.parametrize("together", [True, False])
async def test_a_replay_that_names_a_coin_on_another_partition_counts_once(
    redis_url: str, redis_prefix: str, together: bool
) -> None:
    """Records are keyed by their first coin, so after a new name the same ids stand on another partition."""
    first, second = ("signals", 0), ("signals", 1)
    at = NOW - timedelta(minutes=2)
    bare = [make_signal(n, at, at, random.Random(n)) | {"coins": [], "relevance": 1.0} for n in range(100)]
    named = [one | {"coins": ["NEW"]} for one in bare]
    batches = [{first: list(enumerate(bare))}, {second: list(enumerate(named))}]
    if together:
        batches = [batches[0] | batches[1]]
    async with RedisStore(redis_url) as store:
        projector = aggregator(store, redis_prefix)
        results = [await projector.apply(batch) for batch in batches]
        assert (results[-1].repeats, results[-1].rejected) == (100, [])
        assert results[-1].symbols == ([MARKET] if together else [])
        before = await contents(redis_url, redis_prefix)
        # After a restart the copies may be read first.
        restarted = aggregator(store, redis_prefix)
        await restarted.assign({first: 100, second: 100})
        for batch in ({second: list(enumerate(named))}, {first: list(enumerate(bare))}):
            await restarted.apply(batch)
        reader = AggregateReader(store, Keys(redis_prefix))
        found = await reader.window("1h", NOW)
    assert {symbol: metrics.messages for symbol, metrics in found.items()} == {MARKET: 100, "NEW": 0}
    assert await contents(redis_url, redis_prefix) == before


async def test_one_id_in_two_rooms_is_two_messages(redis_url: str, redis_prefix: str) -> None:
    """Message ids of chats count up in each room; the second room's were dropped as repeats."""
    log = make_log(100, partitions=1)
    (partition,) = log
    rooms = [signal | {"source": room} for signal in log[partition] for room in ("a", "b")]
    records = list(enumerate(rooms))
    async with RedisStore(redis_url) as store:
        assert (await aggregator(store, redis_prefix).apply({partition: records[:150]})).repeats == 0
        restarted = aggregator(store, redis_prefix)
        start = (await restarted.assign({partition: 150}, margin=60))[partition]
        assert (await restarted.apply({partition: records[start:]})).repeats == 0
        # What was read again since the restart tells the pairs, not the ids.
        again = [(200 + n, one) for n, one in enumerate(rooms[start:])]
        assert (await restarted.apply({partition: again})).repeats == len(again)
    await check(redis_url, redis_prefix, {partition: rooms})


async def test_what_is_no_signal_stops_nobody(redis_url: str, redis_prefix: str) -> None:
    log = make_log(50, partitions=1)
    (partition,) = log
    records: list[tuple[int, Any]] = list(enumerate(log[partition]))
    records[20:20] = [(20, {"id": "x"}), (20, {})]
    async with RedisStore(redis_url) as store:
        result = await aggregator(store, redis_prefix).apply({partition: records})
    assert [(place, offset) for place, offset, _ in result.rejected] == [(partition, 20)] * 2
    await check(redis_url, redis_prefix, log)


async def test_a_script_that_the_server_forgot_is_loaded_again(server: EmbeddedRedis) -> None:
    log = make_log(100)
    async with RedisStore(server.url) as store, Redis.from_url(server.url) as client:
        projector = aggregator(store)
        for partition, records in log.items():
            for offset, signal in enumerate(records):
                if offset % 20 == 0:
                    await client.script_flush()
                await projector.apply({partition: [(offset, signal)]})
    await check(server.url, "kbert:", log)


async def test_a_lost_answer_counts_once(server: EmbeddedRedis) -> None:
    log = make_log(300)
    async with LosingProxy(server.port) as proxy:
        async with RedisStore(f"redis://127.0.0.1:{proxy.port}/0") as store:
            projector = aggregator(store)
            for start in range(0, 300, 30):
                proxy.lose_answer_to(b"EVALSHA")
                batch = {p: list(enumerate(rows))[start : start + 30] for p, rows in log.items()}
                await projector.apply({p: rows for p, rows in batch.items() if rows})
        assert proxy.lost >= 5
    await check(server.url, "kbert:", log)


async def test_a_cancelled_batch_counts_once(redis_url: str, redis_prefix: str) -> None:
    log = make_log(400)
    partition, records = next(iter(log.items()))
    rows = list(enumerate(records))
    cancelled = 0
    async with RedisStore(redis_url) as store:
        projector = aggregator(store, redis_prefix)
        for turns, start in enumerate(range(0, len(rows), 10)):
            task = asyncio.ensure_future(projector.apply({partition: rows[start : start + 10]}))
            for _ in range(turns):
                await asyncio.sleep(0)
            cancelled += task.cancel()
            with suppress(asyncio.CancelledError):
                await task
            await projector.apply({partition: rows[start : start + 10]})
    assert cancelled > 5, "some were cancelled while Redis worked"
    await check(redis_url, redis_prefix, {partition: records, ("signals", 99): []})


async def test_redis_frozen_for_a_while_loses_and_repeats_nothing(server: EmbeddedRedis) -> None:
    log = make_log(400)
    async with CountingStore(server.url, answer_timeout=0.3) as store:
        projector = aggregator(store)
        halves = {p: len(rows) // 2 for p, rows in log.items()}
        await consume(projector, {p: rows[: halves[p]] for p, rows in log.items()})
        server.freeze()
        before = store.calls
        work = asyncio.ensure_future(consume(projector, log, start=halves))
        await eventually(lambda: store.calls >= before + 3, what="a third try")
        assert not work.done()
        server.thaw()
        assert await asyncio.wait_for(work, 20) == 0
    await check(server.url, "kbert:", log)


async def test_redis_killed_and_back_with_its_data_loses_and_repeats_nothing(tmp_path: Any) -> None:
    log = make_log(400)
    async with EmbeddedRedis(directory=tmp_path, options=["--appendfsync", "always"]) as server:
        async with CountingStore(server.url) as store:
            projector = aggregator(store)
            work = asyncio.ensure_future(consume(projector, log, size=3))
            await eventually(lambda: store.calls > 20, what="a part of the work", interval=0.001)
            server.kill()
            before = store.calls
            await eventually(lambda: store.calls >= before + 2, what="a second try")
            assert not work.done()
            await server.start()
            assert await asyncio.wait_for(work, 30) == 0
        await check(server.url, "kbert:", log)


async def test_redis_back_empty_is_noticed_and_everything_is_rebuilt(server: EmbeddedRedis) -> None:
    log = make_log(400)
    async with RedisStore(server.url) as store:
        projector = aggregator(store)
        halves = {p: len(rows) // 2 for p, rows in log.items()}
        await consume(projector, {p: rows[: halves[p]] for p, rows in log.items()})
        server.kill()
        await server.start()
        assert await consume(projector, log, start=halves) >= 1
    await check(server.url, "kbert:", log)


async def test_a_coin_that_was_silent_since_the_restart_is_rebuilt_too(server: EmbeddedRedis) -> None:
    """It was applied to the empty Redis as if it were new, and its history was below its new fence."""
    partition = ("signals", 0)
    rng = random.Random(5)

    def about(number: int, *coins: str) -> dict[str, Any]:
        at = NOW - timedelta(minutes=100 - number)
        return make_signal(number, at, at, rng) | {"coins": list(coins), "relevance": 0.0}

    log = {partition: [about(0, "OLD"), about(1, "BTC"), about(2, "BTC"), about(3, "OLD", "NEW")]}
    rows = list(enumerate(log[partition]))
    async with RedisStore(server.url) as store:
        await aggregator(store).apply({partition: rows[:2]})
        restarted = aggregator(store)
        await restarted.apply({partition: rows[2:3]})  # OLD is not named since the restart
        server.kill()
        await server.start()
        assert await consume(restarted, log, start={partition: 3}) == 1
    await check(server.url, "kbert:", log)


async def roll_back(url: str, snapshot: dict[bytes, bytes | None]) -> None:
    """What a failover to a replica that lags does."""
    async with Redis.from_url(url) as client:
        await client.flushdb()
        for key, value in snapshot.items():
            assert value is not None
            await client.restore(key, 0, value)


async def test_a_loss_names_every_partition_of_the_batch(server: EmbeddedRedis) -> None:
    """The coin's script was refused as a whole, so what another partition brought was not applied either."""
    first, second = ("signals", 0), ("signals", 1)
    rng = random.Random(6)
    rows = [
        make_signal(n, NOW, NOW, rng) | {"coins": ["BTC"], "relevance": 0.0, "author_hash": None}
        for n in range(3)
    ]
    log = {first: rows[:2], second: rows[2:]}
    async with RedisStore(server.url) as store:
        projector = aggregator(store)
        await projector.assign({first: 0, second: 0})
        await projector.apply({first: [(0, rows[0])]})
        server.kill()
        await server.start()
        with pytest.raises(DataLostError) as lost:
            await projector.apply({first: [(1, rows[1])], second: [(0, rows[2])]})
        assert lost.value.rewind == {first: 0, second: 0}
        await consume(projector, log, start=lost.value.rewind)
    await check(server.url, "kbert:", log)


@pytest.mark.parametrize("call", [1, 2, 3])
async def test_a_loss_is_found_again_after_a_cancelled_call(server: EmbeddedRedis, call: int) -> None:
    """The calls are the refused scripts, the registry and the fences."""
    log = make_log(200)
    halves = {p: len(rows) // 2 for p, rows in log.items()}

    class CancellingStore(CountingStore):
        victim: asyncio.Task[int] | None = None

        async def _pipeline(self, commands: Sequence[Any]) -> list[Any]:
            answers = await super()._pipeline(commands)
            if self.victim is not None and self.calls == call:
                self.victim.cancel()
            return answers

    async with CancellingStore(server.url) as store:
        projector = aggregator(store)
        await consume(projector, {p: rows[: halves[p]] for p, rows in log.items()})
        server.kill()
        await server.start()
        store.calls = 0
        store.victim = asyncio.ensure_future(consume(projector, log, start=halves))
        with suppress(asyncio.CancelledError):
            await store.victim
        store.victim = None
        assert await consume(projector, log, start=halves) >= 1
    await check(server.url, "kbert:", log)


async def test_a_repeat_across_a_loss_counts_once(server: EmbeddedRedis) -> None:
    """Its first record lies before the loss, and before what was read since the restart."""
    log = make_log(100, partitions=1)
    (partition,) = log
    records = log[partition]
    for signal in records:
        signal |= {"coins": ["BTC"], "relevance": 0.0}  # so the fence that stands is the 49 exactly
    records[55] = records[45]
    async with RedisStore(server.url) as store:
        await consume(aggregator(store), {partition: records[:50]})
        snapshot = await contents(server.url, "kbert:")
        await consume(aggregator(store), {partition: records[:90]})
        restarted = aggregator(store)
        start = await restarted.assign({partition: 90}, margin=5)
        await roll_back(server.url, snapshot)
        assert await consume(restarted, log, start=start) == 1
    await check(server.url, "kbert:", {partition: records[:55] + records[56:]})


@pytest.mark.parametrize("distance", [6, 50])
async def test_a_repeat_right_after_a_restart_counts_once(
    redis_url: str, redis_prefix: str, distance: int
) -> None:
    """The ids of the margin alone were known, a tenth of those that a running process remembers."""
    log = make_log(101, partitions=1)
    (partition,) = log
    records = log[partition]
    at = NOW - timedelta(minutes=5)
    records[100] = records[100 - distance] = make_signal(1_000, at, at, random.Random(7))
    async with RedisStore(redis_url) as store:
        await consume(aggregator(store, redis_prefix), {partition: records[:100]})
        restarted = aggregator(store, redis_prefix, id_window=50)
        start = await restarted.assign({partition: 100}, margin=5)
        await consume(restarted, log, start=start)
    await check(redis_url, redis_prefix, {partition: records[:100]})


@pytest.mark.parametrize("failover", [False, True])
@pytest.mark.parametrize(("first", "repeat"), [(0, 46), (46, 96)])
async def test_a_repeat_that_was_dropped_does_not_count_when_it_is_read_again(
    server: EmbeddedRedis, first: int, repeat: int, failover: bool
) -> None:
    """It lies above the fence of its coin, which nobody has named since."""
    log = make_log(120, partitions=1)
    (partition,) = log
    records = log[partition]
    for signal in records:
        signal |= {"coins": ["BTC"], "relevance": 0.0}
    at = NOW - timedelta(minutes=5)
    old = make_signal(first, at, at, random.Random(7)) | {"coins": ["OLD"], "relevance": 0.0}
    records[first] = records[repeat] = old
    async with RedisStore(server.url) as store:
        projector = aggregator(store, id_window=50)
        await projector.assign({partition: 0}, margin=5)
        await consume(projector, {partition: records[:100]})
        if failover:
            snapshot = await contents(server.url, "kbert:")
            await consume(projector, {partition: records[:110]}, start={partition: 100})
            await roll_back(server.url, snapshot)
            assert await consume(projector, log, start={partition: 110}) == 1
        else:
            projector = aggregator(store, id_window=50)
            await consume(projector, log, start=await projector.assign({partition: 100}, margin=5))
    await check(server.url, "kbert:", {partition: records[:repeat] + records[repeat + 1 :]})


async def test_what_is_read_again_for_its_ids_is_no_news(redis_url: str, redis_prefix: str) -> None:
    log = make_log(100, partitions=1)
    (partition,) = log
    records = [*log[partition][:70], {"id": "x"}, *log[partition][70:99]]
    records[75] = records[60]
    async with RedisStore(redis_url) as store:
        await aggregator(store, redis_prefix).apply({partition: list(enumerate(records))})
        restarted = aggregator(store, redis_prefix, id_window=50)
        assert await restarted.assign({partition: 100}, margin=5) == {partition: 45}
        again = await restarted.apply({partition: list(enumerate(records))[45:90]})
    assert (again.records, again.fence_skips, again.repeats, again.rejected) == (45, 45, 0, [])
    assert again.symbols == []
    assert again.stands == {partition: 100}, "what was committed stays committed"


async def test_last_writes_lost_in_a_failover_are_applied_again(server: EmbeddedRedis) -> None:
    log = make_log(400)
    async with RedisStore(server.url) as store:
        projector = aggregator(store)
        await consume(projector, {p: rows[:100] for p, rows in log.items()})
        snapshot = await contents(server.url, "kbert:")
        await consume(projector, {p: rows[:150] for p, rows in log.items()}, start=dict.fromkeys(log, 100))
        await roll_back(server.url, snapshot)
        assert await consume(projector, log, start=dict.fromkeys(log, 150)) >= 1
    await check(server.url, "kbert:", log)


async def test_last_writes_lost_while_the_process_restarts_are_applied_again(server: EmbeddedRedis) -> None:
    log = make_log(400)
    async with RedisStore(server.url) as store:
        await consume(aggregator(store), {p: rows[:100] for p, rows in log.items()})
        snapshot = await contents(server.url, "kbert:")
        await consume(aggregator(store), {p: rows[:150] for p, rows in log.items()})
        await roll_back(server.url, snapshot)
        restarted = aggregator(store, id_window=5)
        start = await restarted.assign(dict.fromkeys(log, 150), margin=15)
        assert all(60 <= offset <= 80 for offset in start.values()), start
        await consume(restarted, log, start=start)
    await check(server.url, "kbert:", log)


async def test_assignment_starts_margin_and_ids_before_what_is_committed(server: EmbeddedRedis) -> None:
    log = make_log(400)
    first, second = log
    async with RedisStore(server.url) as store:
        projector = aggregator(store)
        assert await projector.assign({first: 120, second: None}, margin=50) == {first: 0, second: 0}
        await consume(projector, log)
        assert (await aggregator(store, id_window=20).assign({first: 120}, margin=50)) == {first: 50}


@pytest.mark.parametrize("anew", [True, False])
async def test_a_topic_that_ends_before_its_fences_is_refused_and_mended(
    redis_url: str, redis_prefix: str, anew: bool
) -> None:
    """Its records would all lie below their fences, and be skipped without a word."""
    log = make_log(100, partitions=1)
    (partition,) = log
    fresh: Log = {partition: [one | {"id": f"new-{one['id']}"} for one in log[partition][:30]]}
    async with RedisStore(redis_url) as store:
        await consume(aggregator(store, redis_prefix), log)
        restarted = aggregator(store, redis_prefix)
        assert await restarted.assign({partition: 100}, margin=10, ends={partition: 100})
        with pytest.raises(ConfigurationError, match=r"made anew, or .*KBERT_REDIS__PREFIX") as refused:
            await restarted.assign({partition: None}, ends={partition: 20})
        commands = [command.split(" | xargs -I KEY ") for command in str(refused.value).split("`")[1::2]]
        scan, change = commands[0 if anew else 1]
        pattern = shlex.split(scan)[-1]
        async with Redis.from_url(redis_url) as client:
            states = [key.decode() async for key in client.scan_iter(match=pattern)]
        await store.run([tuple(shlex.split(change.replace("KEY", key))[1:]) for key in states])
        mended = aggregator(store, redis_prefix)
        await consume(mended, fresh, start=await mended.assign({partition: None}, ends={partition: 20}))
    counted = fresh[partition] if anew else fresh[partition][20:]
    await check(redis_url, redis_prefix, {partition: log[partition] + counted})


async def test_a_partition_revoked_in_the_middle_of_a_batch_may_come_back(server: EmbeddedRedis) -> None:
    log = make_log(300, partitions=1)
    (partition,) = log
    rows = list(enumerate(log[partition]))
    async with CountingStore(server.url, answer_timeout=20) as store:
        one, two = aggregator(store), aggregator(store)
        await one.apply({partition: rows[:50]})
        server.freeze()
        before = store.calls
        work = asyncio.ensure_future(one.apply({partition: rows[50:100]}))
        await eventually(lambda: store.calls > before, what="the call")
        one.revoke([partition])
        server.thaw()
        await work
        await two.apply({partition: rows[:200]})
        await one.assign({partition: 200})
        assert (await one.apply({partition: rows[150:]})).symbols
    await check(server.url, "kbert:", log)
