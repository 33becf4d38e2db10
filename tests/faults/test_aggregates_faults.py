"""From the signals topic into a Redis that goes away, comes back, and comes back empty."""

import asyncio
from datetime import UTC, datetime

from tests.faults.aggregates_load import (
    COINS,
    aggregate_settings,
    equals,
    make_value,
    produce_signals,
    recount,
    running_aggregation,
)
from tests.servers import KafkaServer, Topics
from worker.clients import Aggregates
from worker.embedded import EmbeddedRedis


async def _snapshot(url: str) -> dict[str, dict[str, object]]:
    at = datetime.now(UTC)
    async with Aggregates(url) as reader:
        return {c: (await reader.get(c, at)).model_dump() for c in (*COINS, "MARKET")}


async def test_redis_frozen_for_seconds_loses_nothing_and_counts_nothing_twice(
    kafka: KafkaServer, topics: Topics
) -> None:
    now = datetime.now(UTC)
    values = [make_value(n, now) for n in range(4_000)]
    values += [values[n] for n in range(0, 4_000, 40)]  # repeats that a worker's crash would leave
    async with EmbeddedRedis() as redis:
        settings = await aggregate_settings(kafka, topics, redis.url, "frozen")
        async with running_aggregation(settings):
            await produce_signals(kafka, settings, values[:1_500])
            redis.freeze()
            await produce_signals(kafka, settings, values[1_500:3_000])
            loop = asyncio.get_running_loop()
            thawed = loop.create_future()
            loop.call_later(5.5, thawed.set_result, None)  # longer than the client waits for an answer
            await thawed
            redis.thaw()
            await produce_signals(kafka, settings, values[3_000:])
            await equals(redis.url, recount(values))


async def test_redis_killed_and_back_without_its_data_is_filled_again_from_the_topic(
    kafka: KafkaServer, topics: Topics
) -> None:
    now = datetime.now(UTC)
    values = [make_value(n, now) for n in range(3_000)]
    redis = EmbeddedRedis()
    await redis.start()
    try:
        settings = await aggregate_settings(kafka, topics, redis.url, "killed")
        async with running_aggregation(settings):
            await produce_signals(kafka, settings, values[:2_000])
            await equals(redis.url, recount(values[:2_000]))
            redis.kill()
            await produce_signals(kafka, settings, values[2_000:2_500])
            await redis.start()
            await produce_signals(kafka, settings, values[2_500:])
            await equals(redis.url, recount(values))
    finally:
        await redis.stop()


async def test_replaying_the_whole_topic_changes_no_number(kafka: KafkaServer, topics: Topics) -> None:
    now = datetime.now(UTC)
    values = [make_value(n, now) for n in range(2_000)]
    async with EmbeddedRedis() as redis:
        settings = await aggregate_settings(kafka, topics, redis.url, "once")
        await produce_signals(kafka, settings, values)
        async with running_aggregation(settings):
            await equals(redis.url, recount(values))
        before = await _snapshot(redis.url)

        again = settings.model_copy(
            update={"aggregates": settings.aggregates.model_copy(update={"group_id": "again", "margin": 0})}
        )
        more = [make_value(n, now) for n in range(2_000, 2_100)]
        async with running_aggregation(again):  # a group without offsets reads from the beginning
            await produce_signals(kafka, settings, more)
            await equals(redis.url, recount(values + more))
        after = await _snapshot(redis.url)
    for coin in COINS:
        assert before[coin]["windows"] != after[coin]["windows"]  # the new ones did arrive
