"""`worker.clients.Aggregates`, as a bot uses it."""

import asyncio
import random
import subprocess
import sys
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import pytest
from redis.asyncio import Redis

from schemas.aggregates import AggregateChange
from schemas.windows import MARKET, WINDOWS
from tests.recount import RELEVANT_FROM, Recount
from tests.signals import make_signal, make_week
from tests.waiting import eventually
from worker.aggregates.project import Aggregator
from worker.aggregates.store import RedisStore
from worker.clients import Aggregates
from worker.embedded import EmbeddedRedis, free_port
from worker.errors import ConfigurationError, ConnectionFailedError

PARTITION = ("signals", 0)


async def write(
    url: str, prefix: str, signals: list[dict[str, object]], cluster: bool = False, start: int = 0
) -> None:
    async with RedisStore(url, cluster=cluster) as store:
        aggregator = Aggregator(store, prefix=prefix, relevant_from=RELEVANT_FROM)
        await aggregator.apply({PARTITION: list(enumerate(signals, start))})


@pytest.fixture
async def cluster() -> AsyncIterator[EmbeddedRedis]:
    """A Redis Cluster of one node that owns every slot."""
    async with EmbeddedRedis(cluster=True) as server:
        async with RedisStore(server.url) as store:
            await store.run([("CLUSTER", "ADDSLOTSRANGE", 0, 16_383)])

            async def is_ready() -> bool:
                (state,) = await store.run([("CLUSTER", "INFO")])
                return "cluster_state:ok" in str(state)

            await eventually(is_ready)
        yield server


async def test_one_coin_and_one_window_of_all_agree_with_a_recount(redis_url: str, redis_prefix: str) -> None:
    now = datetime.now(UTC)
    signals = make_week(now, 500, seed=1)
    await write(redis_url, redis_prefix, signals)
    recount = Recount(signals, now)
    async with Aggregates(redis_url, prefix=redis_prefix) as aggregates:
        coins = await aggregates.coins()
        assert coins == sorted(recount.symbols - {MARKET})
        for window in WINDOWS:
            found = await aggregates.all(window, at=now)
            assert found.keys() == recount.symbols
            for symbol, metrics in found.items():
                recount.check(symbol, window, metrics)
        bitcoin = await aggregates.get("BTC", at=now)
        assert bitcoin.as_of == now.replace(microsecond=now.microsecond // 1_000 * 1_000)
        assert bitcoin.windows["4h"] == (await aggregates.all("4h", at=now))["BTC"]


async def test_now_is_the_default(redis_url: str, redis_prefix: str) -> None:
    now = datetime.now(UTC)
    signal = make_signal(1, now, now, random.Random(1)) | {"coins": ["BTC"]}
    await write(redis_url, redis_prefix, [signal])
    async with Aggregates(redis_url, prefix=redis_prefix) as aggregates:
        found = await aggregates.get("BTC")
        assert found.windows["5m"].messages == 1
        assert found.freshness is not None
        assert 0 <= found.freshness < 60
        assert (await aggregates.all("5m"))["BTC"].messages == 1


async def test_a_series_of_a_range_between_two_steps_is_empty(redis_url: str, redis_prefix: str) -> None:
    """Redis was asked for no key at all, and refused."""
    hour = datetime.now(UTC).replace(minute=0, second=0, microsecond=0) - timedelta(hours=2)
    async with Aggregates(redis_url, prefix=redis_prefix) as aggregates:
        for since, until, step in ((10, 50, None), (10, 50, 60), (60, 3_000, 3_600)):
            series = await aggregates.series(
                "BTC",
                ["messages"],
                since=hour + timedelta(seconds=since),
                until=hour + timedelta(seconds=until),
                step=step,
            )
            assert (series.times, series.values) == ([], {"messages": []})


async def test_windows_of_a_moment_up_to_an_hour_ago(redis_url: str, redis_prefix: str) -> None:
    now = datetime.now(UTC)
    then = now - timedelta(minutes=59)
    rng = random.Random(2)
    times = [then - timedelta(minutes=rng.uniform(0, 1_500)) for _ in range(300)]
    signals = [make_signal(n, at, at, rng) for n, at in enumerate(times)]
    await write(redis_url, redis_prefix, signals)
    recount = Recount(signals, then)
    async with Aggregates(redis_url, prefix=redis_prefix) as aggregates:
        for symbol in recount.symbols:
            found = await aggregates.get(symbol, at=then)
            for window in WINDOWS:
                recount.check(symbol, window, found.windows[window])


async def test_an_unknown_coin_has_zeros_and_nulls(redis_url: str, redis_prefix: str) -> None:
    async with Aggregates(redis_url, prefix=redis_prefix) as aggregates:
        found = await aggregates.get("NONE")
        assert await aggregates.coins() == []
        assert list(await aggregates.all()) == [MARKET]
    assert found.freshness is None
    for window in WINDOWS:
        metrics = found.windows[window]
        assert metrics.messages == metrics.unique_authors == metrics.late == 0
        assert metrics.sentiment_index is metrics.dispersion is metrics.zscore_volume is None


async def test_changes_are_announced_once_a_batch(redis_url: str, redis_prefix: str) -> None:
    now = datetime.now(UTC)
    rng = random.Random(3)
    async with Aggregates(redis_url, prefix=redis_prefix) as aggregates:
        changes = aggregates.changes()
        first = asyncio.ensure_future(anext(changes))
        async with Redis.from_url(redis_url) as client:

            async def subscribed() -> bool:
                return dict(await client.pubsub_numsub(f"{redis_prefix}changes")).popitem()[1] == 1

            await eventually(subscribed)
            await client.publish(f"{redis_prefix}changes", "no change at all")
        for n, coin in enumerate(("BTC", "ETH")):
            signal = make_signal(n, now, now, rng) | {"coins": [coin], "relevance": 1.0}
            await eventually(subscribed)
            await write(redis_url, redis_prefix, [signal, signal], start=10 * n)
        found: list[AggregateChange] = [await asyncio.wait_for(first, 20)]
        found.append(await asyncio.wait_for(anext(changes), 20))
        await changes.aclose()
    assert [change.symbols for change in found] == [["BTC", "MARKET"], ["ETH", "MARKET"]]


async def test_changes_go_on_after_an_outage() -> None:
    now = datetime.now(UTC)
    signal = make_signal(1, now, now, random.Random(4)) | {"coins": ["BTC"]}
    async with EmbeddedRedis() as server, Aggregates(server.url) as aggregates:
        changes = aggregates.changes()
        first = asyncio.ensure_future(anext(changes))
        async with Redis.from_url(server.url) as client:

            async def subscribed() -> bool:
                return b"kbert:changes" in await client.pubsub_channels()

            await eventually(subscribed)
            server.kill()
            await server.start()
        async with Redis.from_url(server.url) as client:
            await eventually(subscribed)
        await write(server.url, "kbert:", [signal])
        assert "BTC" in (await asyncio.wait_for(first, 20)).symbols
        await changes.aclose()


async def test_changes_end_with_a_sentence_where_redis_refuses() -> None:
    """They tried again twice a second, for ever."""
    rights = ("on", ">secret", "~*", "+@all", "resetchannels")
    user = {"username": "kbert", "password": "secret"}
    async with EmbeddedRedis() as server, RedisStore(server.url) as admin:
        await admin.run([("ACL", "SETUSER", "kbert", *rights)])
        async with Aggregates(server.url, client_options=user) as aggregates:
            with pytest.raises(ConfigurationError, match="refuses us: correct user and password"):
                await asyncio.wait_for(anext(aggregates.changes()), 20)
            await admin.run([("ACL", "SETUSER", "kbert", "&kbert:*")])
            changes = aggregates.changes()
            first = asyncio.ensure_future(anext(changes))

            async def subscribed() -> bool:
                return await admin.run([("PUBSUB", "CHANNELS")]) == [[b"kbert:changes"]]

            await eventually(subscribed)
            await admin.run([("ACL", "SETUSER", "kbert", "resetpass", ">another")])
            await admin.run([("CLIENT", "KILL", "TYPE", "pubsub")])
            with pytest.raises(ConfigurationError, match="refuses us: correct user and password"):
                await asyncio.wait_for(first, 20)


async def test_a_redis_cluster_serves_writer_reader_and_changes(cluster: EmbeddedRedis) -> None:
    now = datetime.now(UTC)
    signals = make_week(now, 300, seed=5)
    recount = Recount(signals, now)
    async with Aggregates(cluster.url, cluster=True) as aggregates:
        changes = aggregates.changes()
        first = asyncio.ensure_future(anext(changes))
        async with Redis.from_url(cluster.url) as client:

            async def subscribed() -> bool:
                return b"kbert:changes" in await client.pubsub_channels()

            await eventually(subscribed)
        await write(cluster.url, "kbert:", signals, cluster=True)
        await write(cluster.url, "kbert:", signals, cluster=True)  # a replay
        assert set((await asyncio.wait_for(first, 20)).symbols) == recount.symbols
        await changes.aclose()
        for symbol in recount.symbols:
            found = await aggregates.get(symbol, at=now)
            for window in WINDOWS:
                recount.check(symbol, window, found.windows[window])


async def test_a_server_that_is_not_there_is_one_sentence() -> None:
    with pytest.raises(ConnectionFailedError, match=r"does not answer: start it, or correct redis\.url"):
        async with Aggregates(f"redis://127.0.0.1:{free_port()}/0"):
            pass


def test_it_needs_no_torch() -> None:
    code = "import sys, worker.clients; print({'torch', 'transformers', 'numpy'} & set(sys.modules))"
    run = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert run.stdout.strip() == "set()"
