"""Signals into Redis: what waits for a Redis that refuses, and what is committed after a restart."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from time import monotonic
from typing import Final

import pytest
from redis.asyncio import Redis
from redis.exceptions import ResponseError

from tests.faults.aggregates_load import aggregate_settings, equals, make_value, produce_signals, recount
from tests.kafka_io import committed
from tests.servers import KafkaServer, Topics
from tests.waiting import eventually
from worker.aggregates.project import Aggregator
from worker.aggregates.store import RedisStore, RefusedForNowError
from worker.aggregation import Aggregation
from worker.app import run_services
from worker.embedded import EmbeddedRedis
from worker.errors import ConfigurationError
from worker.settings import Settings
from worker.source.follower import Partition
from worker.telemetry.health import HEALTH

STALL_LIMIT: Final = 4.0

Commands = list[tuple[str, ...]]
REFUSALS: Final[dict[str, tuple[Commands, Commands]]] = {
    "OOM": (
        [("CONFIG", "SET", "maxmemory-policy", "noeviction"), ("CONFIG", "SET", "maxmemory", "1")],
        [("CONFIG", "SET", "maxmemory", "0")],
    ),
    "READONLY": ([("REPLICAOF", "127.0.0.1", "1")], [("REPLICAOF", "NO", "ONE")]),
    "NOREPLICAS": (
        [("CONFIG", "SET", "min-replicas-to-write", "1")],
        [("CONFIG", "SET", "min-replicas-to-write", "0")],
    ),
    "MISCONF": ([("BGSAVE",)], [("CONFIG", "SET", "stop-writes-on-bgsave-error", "no")]),
}
"""What a Redis answers that takes no writes; what makes it so, and what ends it."""


class Refusing:
    """A Redis that answers reads, and refuses writes when it is told to."""

    def __init__(self, server: EmbeddedRedis, code: str) -> None:
        self.url = server.url
        self._code = code

    async def refuse(self) -> None:
        await self._tell(REFUSALS[self._code][0])
        async with Redis.from_url(self.url) as client:

            async def refused() -> bool:
                try:
                    await client.set("probe", 1)
                except ResponseError:
                    return True
                return False

            await eventually(refused, what=f"the answer {self._code}")
            await client.get("probe")

    async def mend(self) -> None:
        await self._tell(REFUSALS[self._code][1])

    async def _tell(self, commands: Commands) -> None:
        async with Redis.from_url(self.url) as client:
            for command in commands:
                await client.execute_command(*command)  # type: ignore[no-untyped-call]


@asynccontextmanager
async def refusing(directory: Path, code: str) -> AsyncIterator[Refusing]:
    """A server that cannot save, since a folder has the name of its file."""
    options = ["--save", "3600 1", "--dbfilename", "taken", "--appendonly", "no"]
    options += ["--shutdown-on-sigterm", "nosave"]
    async with EmbeddedRedis(directory=directory, options=options) as server:
        (directory / "taken").mkdir()
        yield Refusing(server, code)


async def settings_of(kafka: KafkaServer, topics: Topics, redis_url: str, group: str) -> Settings:
    settings = await aggregate_settings(kafka, topics, redis_url, group)
    source = settings.source.model_copy(update={"stall_limit": STALL_LIMIT})
    return settings.model_copy(update={"source": source})


@asynccontextmanager
async def aggregating(settings: Settings) -> AsyncIterator["asyncio.Task[None]"]:
    """The service as a process has it."""
    stop = asyncio.Event()
    running = asyncio.create_task(run_services(settings, ["aggregates"], stop))
    try:
        yield running
    finally:
        stop.set()
        await running


def lacks() -> str:
    """What the aggregates of this process lack."""
    return HEALTH.parts().get("aggregates") or ""


@pytest.mark.parametrize("code", ["OOM", "READONLY"])
async def test_writes_that_are_refused_wait_longer_than_the_stall_limit(
    kafka: KafkaServer, topics: Topics, tmp_path: Path, code: str
) -> None:
    """Redis answered the probe, so that the process, and the classifier in it, ended again and again."""
    values = [make_value(n, datetime.now(UTC)) for n in range(600)]
    async with refusing(tmp_path, code) as redis:
        settings = await settings_of(kafka, topics, redis.url, f"refused-{code}")
        async with aggregating(settings) as running:
            await produce_signals(kafka, settings, values[:300])
            await equals(redis.url, recount(values[:300]))
            await redis.refuse()
            await produce_signals(kafka, settings, values[300:])
            await eventually(lambda: running.done() or "has taken nothing" in lacks())
            began = monotonic()
            await eventually(lambda: running.done() or monotonic() - began > 1.5 * STALL_LIMIT)
            assert not running.done()
            assert "has taken nothing" in lacks()
            await redis.mend()
            await equals(redis.url, recount(values))
            await eventually(lambda: not lacks())


@pytest.mark.parametrize("code", REFUSALS)
async def test_a_start_waits_while_writes_are_refused(
    kafka: KafkaServer, topics: Topics, tmp_path: Path, code: str
) -> None:
    values = [make_value(n, datetime.now(UTC)) for n in range(100)]
    async with refusing(tmp_path, code) as redis:
        settings = await settings_of(kafka, topics, redis.url, f"start-{code}")
        await produce_signals(kafka, settings, values)
        await redis.refuse()
        async with RedisStore(redis.url) as store:
            with pytest.raises(RefusedForNowError, match="answers, but refuses for now"):
                await Aggregator(store, prefix="kbert:").check()
        async with aggregating(settings) as running:
            await eventually(lambda: running.done() or "refuses for now" in lacks())
            assert not running.done()
            await redis.mend()
            await equals(redis.url, recount(values))


async def test_a_start_that_waits_outlives_a_restart_of_redis(kafka: KafkaServer, topics: Topics) -> None:
    values = [make_value(n, datetime.now(UTC)) for n in range(100)]
    async with EmbeddedRedis() as redis:
        settings = await settings_of(kafka, topics, redis.url, "restarted")
        await produce_signals(kafka, settings, values)
        async with Redis.from_url(redis.url) as client:
            await client.config_set("maxmemory", 1)
        async with aggregating(settings) as running:
            await eventually(lambda: running.done() or "refuses for now" in lacks())
            redis.kill()
            await eventually(lambda: running.done() or "does not answer" in lacks())
            assert not running.done()
            await redis.start()
            await equals(redis.url, recount(values))


async def test_a_start_that_waits_ends_when_it_shall_stop(
    kafka: KafkaServer, topics: Topics, tmp_path: Path
) -> None:
    async with refusing(tmp_path, "OOM") as redis:
        settings = await settings_of(kafka, topics, redis.url, "stopped")
        await redis.refuse()
        async with asyncio.timeout(20), aggregating(settings):
            await eventually(lambda: "refuses for now" in lacks())


async def test_a_start_does_not_wait_for_a_right_that_it_lacks(
    kafka: KafkaServer, topics: Topics, tmp_path: Path
) -> None:
    async with refusing(tmp_path, "OOM") as redis:
        async with Redis.from_url(redis.url) as client:
            await client.execute_command(  # type: ignore[no-untyped-call]
                "ACL", "SETUSER", "kbert", "on", ">pw", "~*", "&*", "+@all", "-evalsha"
            )
        await redis.refuse()
        for user, sentence in (("kbert:pw", "ACL"), ("kbert:wrong", "user and password")):
            settings = await settings_of(kafka, topics, redis.url.replace("//", f"//{user}@"), "refused")
            async with asyncio.timeout(20):
                with pytest.raises(ConfigurationError, match=sentence):
                    await run_services(settings, ["aggregates"], asyncio.Event())


async def test_what_is_read_again_after_a_restart_is_not_committed_anew(
    kafka: KafkaServer, topics: Topics
) -> None:
    """A commit of what is read again would show as lag, and the next restart would begin before it."""
    values = [make_value(n, datetime.now(UTC)) for n in range(600)]
    async with EmbeddedRedis() as redis:
        settings = await settings_of(kafka, topics, redis.url, "again")
        narrow = {"id_window": 150, "margin": 5, "max_poll_records": 20}
        settings = settings.model_copy(update={"aggregates": settings.aggregates.model_copy(update=narrow)})
        await produce_signals(kafka, settings, values[:500])
        async with aggregating(settings):
            await equals(redis.url, recount(values[:500]))
        server, topic = kafka.bootstrap_servers, settings.topics.signals
        before = await committed(server, settings.aggregates.group_id, topic, 3)
        assert sum(offset or 0 for offset in before.values()) == 500
        stop, applied = asyncio.Event(), list[tuple[Partition, int]]()
        async with Aggregation(settings) as aggregation:
            note = aggregation._follower.applied

            def noting(partition: Partition, offset: int) -> None:
                applied.append((partition, offset))
                note(partition, offset)

            aggregation._follower.applied = noting  # type: ignore[assignment, method-assign]
            running = asyncio.create_task(aggregation.run(stop))
            await produce_signals(kafka, settings, values[500:])
            await equals(redis.url, recount(values))
            stop.set()
            await running
    assert len(applied) > 10, "it was read again, in pieces"
    # A record of no coin moves no fence, so Redis may know a few records less than Kafka.
    assert all(offset > (before[number] or 0) - 10 for (_, number), offset in applied)
