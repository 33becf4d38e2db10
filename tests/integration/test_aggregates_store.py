"""The connection to Redis: what it says when it cannot, and what a cancelled call leaves."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest
from redis.asyncio import Redis

from tests.proxies import LosingProxy
from tests.waiting import eventually
from worker.aggregates.project import Aggregator
from worker.aggregates.store import RedisStore
from worker.embedded import EmbeddedRedis, free_port
from worker.errors import ConfigurationError, ConnectionFailedError, KbertError


@pytest.fixture
async def server() -> AsyncIterator[EmbeddedRedis]:
    async with EmbeddedRedis() as redis:
        yield redis


async def failure(url: str, cluster: bool = False) -> KbertError:
    """What `check` says."""
    async with RedisStore(url, cluster=cluster) as store:
        with pytest.raises(KbertError) as caught:
            await Aggregator(store, prefix="kbert:").check()
    return caught.value


@pytest.mark.parametrize("cluster", [False, True])
async def test_a_server_that_is_not_there_is_named_with_its_setting(cluster: bool) -> None:
    port = free_port()
    error = await failure(f"redis://user:s3cret@127.0.0.1:{port}/0", cluster)
    assert isinstance(error, ConnectionFailedError)
    assert f"127.0.0.1:{port}" in str(error)
    assert "KBERT_REDIS__URL" in str(error)
    assert "s3cret" not in f"{error} {error!r} {error.__cause__!r}"


async def test_a_single_server_taken_for_a_cluster_is_told(server: EmbeddedRedis) -> None:
    error = await failure(server.url, cluster=True)
    assert isinstance(error, ConfigurationError)
    assert "KBERT_REDIS__CLUSTER" in str(error)


async def test_a_wrong_password_is_told_without_the_password() -> None:
    async with EmbeddedRedis(options=["--requirepass", "right"]) as server:
        for url in (server.url, server.url.replace("//", "//:wr0ng@")):
            error = await failure(url)
            assert isinstance(error, ConfigurationError)
            assert "user and password" in str(error)
            assert "wr0ng" not in f"{error} {error!r} {error.__cause__!r}"


@pytest.mark.parametrize("command", ["pfadd", "evalsha", "script|load", "setrange", "hset"])
async def test_an_acl_that_lacks_a_command_is_told_before_the_first_batch(
    server: EmbeddedRedis, command: str
) -> None:
    async with Redis.from_url(server.url) as client:
        await client.execute_command(  # type: ignore[no-untyped-call]
            "ACL", "SETUSER", "kbert", "on", ">pw", "~*", "&*", "+@all", f"-{command}"
        )
        error = await failure(server.url.replace("//", "//kbert:pw@"))
        assert isinstance(error, ConfigurationError)
        assert "ACL" in str(error)
        assert await client.keys() == []


async def test_the_check_leaves_nothing(server: EmbeddedRedis) -> None:
    async with RedisStore(server.url) as store, Redis.from_url(server.url) as client:
        await Aggregator(store, prefix="kbert:").check()
        assert await client.keys() == []


@pytest.mark.parametrize("cluster", [False, True])
@pytest.mark.parametrize(
    "url",
    [
        "http://host",
        "redis://host:port/0",
        "127.0.0.1:6379",
        "redis:6379",
        "redis:///0",
        "unix://",
        "redis://127.0.0.1:1/0?foo=bar",
        "redis://127.0.0.1:1/0?protocol=x",
    ],
)
def test_what_is_no_redis_address_is_refused(url: str, cluster: bool) -> None:
    with pytest.raises(ConfigurationError, match=r"KBERT_REDIS__URL\) is no Redis address"):
        RedisStore(url, cluster=cluster)


@pytest.mark.parametrize("url", ["redis://127.0.0.1:1/1", "unix:///run/redis.sock"])
def test_what_is_no_address_of_a_cluster_is_refused(url: str) -> None:
    RedisStore(url)
    with pytest.raises(ConfigurationError, match=r"no address of a cluster.*KBERT_REDIS__CLUSTER"):
        RedisStore(url, cluster=True)


async def test_a_full_memory_is_waited_for(server: EmbeddedRedis) -> None:
    async with RedisStore(server.url) as store, Redis.from_url(server.url) as client:
        await client.config_set("maxmemory-policy", "noeviction")
        await client.config_set("maxmemory", 1)
        work = asyncio.ensure_future(store.run([("SET", "key", "value")]))
        waiting = await eventually(lambda: store.waiting)
        assert waiting is not None
        assert "memory" in waiting.reason
        assert not work.done()
        await client.config_set("maxmemory", 0)
        assert await asyncio.wait_for(work, 20) == [b"OK"] or work.result() == [True]
        assert store.waiting is None


async def test_a_primary_that_became_a_replica_is_left_for_the_new_one(server: EmbeddedRedis) -> None:
    """A name that moves to the new primary is asked only by a new connection."""
    async with (
        EmbeddedRedis() as new,
        LosingProxy(server.port) as name,
        RedisStore(f"redis://127.0.0.1:{name.port}/0") as store,
        Redis.from_url(server.url) as old,
    ):
        assert len(await store.run([("SET", "key", "old")])) == 1
        await old.execute_command("REPLICAOF", "127.0.0.1", "1")  # type: ignore[no-untyped-call]
        name.lead_to(new.port)
        await asyncio.wait_for(store.run([("SET", "key", "new")]), 20)
        async with Redis.from_url(new.url) as client:
            assert await client.get("key") == b"new"


async def test_a_cancelled_wait_is_none(server: EmbeddedRedis) -> None:
    async with RedisStore(server.url) as store, Redis.from_url(server.url) as client:
        await client.config_set("maxmemory", 1)
        work = asyncio.ensure_future(store.run([("SET", "key", "value")]))
        await eventually(lambda: store.waiting)
        work.cancel()
        with pytest.raises(asyncio.CancelledError):
            await work
        assert store.waiting is None


class Watched(RedisStore):
    """Counts what is sent."""

    sent = 0

    async def _send(self, commands: Sequence[Any]) -> list[Any]:
        self.sent += 1
        return await super()._send(commands)


async def test_a_cancelled_call_leaves_its_connection_clean(server: EmbeddedRedis) -> None:
    """A reply left unread would be taken for the answer to the next call."""
    async with Watched(server.url, connections=1, answer_timeout=20) as store:
        (before,) = await store.run([("CLIENT", "ID")])
        await store.run([("SET", "a", "1"), ("SET", "b", "2")])
        server.freeze()
        sent = store.sent
        call = asyncio.ensure_future(store.run([("GET", "a")]))
        await eventually(lambda: store.sent > sent)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        server.thaw()
        assert await store.run([("GET", "b"), ("CLIENT", "ID")]) == [b"2", before]


async def test_a_reader_waits_no_longer_for_a_place_than_for_an_answer(server: EmbeddedRedis) -> None:
    """The socket is patient here, so that only `once` can end the calls; all but one have no place."""
    patient = {"socket_timeout": 60}
    async with Watched(server.url, connections=1, answer_timeout=0.5, client_options=patient) as store:
        await store.run([("GET", "a")])
        server.freeze()
        sent, tasks = store.sent, len(asyncio.all_tasks())
        calls = [store.once([("GET", "a")]) for _ in range(20)]
        outcomes = await asyncio.wait_for(asyncio.gather(*calls, return_exceptions=True), 30)
        assert {type(outcome) for outcome in outcomes} == {ConnectionFailedError}
        assert "does not answer: start it, or correct redis.url" in str(outcomes[-1])
        assert (store.sent - sent, len(asyncio.all_tasks()) - tasks) == (1, 1)
        server.thaw()
        assert await store.run([("GET", "a")]) == [None]
        assert store.sent - sent == 2


async def test_more_calls_than_connections_wait_for_their_turn(redis_url: str, redis_prefix: str) -> None:
    async with RedisStore(redis_url, connections=2) as store:
        await store.run([("SET", f"{redis_prefix}{n}", n) for n in range(500)])
        calls = [store.once([("GET", f"{redis_prefix}{n}")]) for n in range(500)]
        assert await asyncio.gather(*calls) == [[str(n).encode()] for n in range(500)]
        clients = await store.run([("CLIENT", "LIST")])
    assert str(clients).count("name=") <= 50
