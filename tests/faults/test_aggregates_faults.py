"""From the signals topic into a Redis that goes away, comes back, and comes back empty."""

import asyncio
import json
import random
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

from pydantic import SecretStr

from schemas.labels import ACTIONS, EMOTIONS, SENTIMENTS
from tests.kafka_io import produce, settings_for
from tests.servers import KafkaServer, Topics
from tests.waiting import eventually
from worker.aggregation import Aggregation
from worker.clients import Aggregates
from worker.embedded import EmbeddedRedis
from worker.settings import AggregateSettings, RedisSettings, Settings

COINS = ("BTC", "ETH", "XRP", "SOL")


def _signal(number: int, now: datetime) -> bytes:
    pick = random.Random(number)
    return json.dumps(
        {
            "id": f"m{number}",
            "source": "test",
            "kind": "chat",
            "published_at": (now - timedelta(seconds=pick.uniform(0, 3000))).isoformat(),
            "processed_at": now.isoformat(),
            "coins": pick.sample(COINS, pick.randint(0, 2)),
            "sentiment_strength": pick.choice(SENTIMENTS),
            "action_signal": pick.choice(ACTIONS),
            "emotions": pick.sample(EMOTIONS, pick.randint(0, 3)),
            "certainty": round(pick.random(), 3),
            "relevance": round(pick.random(), 3),
            "toxicity": round(pick.random(), 3),
            "scores": {"sentiment_strength": {}, "action_signal": {}, "emotions": {}},
            "model": {"name": "test", "revision": "0"},
            "truncated": False,
            "author_hash": f"{pick.randint(0, 200):016x}",
        }
    ).encode()


async def _produce(kafka: KafkaServer, settings: Settings, values: list[bytes]) -> None:
    """Keyed as the sink keys, so that a repeat lands on the partition of its original."""
    signals = [json.loads(value) for value in values]
    keys = [(signal["coins"] or [signal["id"]])[0].encode() for signal in signals]
    await produce(kafka.bootstrap_servers, settings.topics.signals, values, keys=keys)


def _recount(values: list[bytes]) -> dict[str, int]:
    unique = {signal["id"]: signal for signal in map(json.loads, values)}
    counts: Counter[str] = Counter()
    for signal in unique.values():
        counts.update(signal["coins"])
        counts["MARKET"] += signal["relevance"] >= 0.4
    return dict(counts)


async def _settings(kafka: KafkaServer, topics: Topics, redis_url: str, group: str) -> Settings:
    return settings_for(
        kafka.bootstrap_servers,
        idempotence=kafka.idempotence,
        raw="unused",
        signals=await topics.make("signals", 3),
        dead_letter="unused",
        redis=RedisSettings(url=SecretStr(redis_url)),
        aggregates=AggregateSettings(group_id=group, session_timeout=6.0, max_poll_records=300),
    )


@asynccontextmanager
async def _aggregation(settings: Settings) -> AsyncIterator[None]:
    stop = asyncio.Event()
    async with Aggregation(settings) as aggregation:
        running = asyncio.create_task(aggregation.run(stop))
        try:
            yield
        finally:
            stop.set()
            await running


async def _equal(url: str, expected: dict[str, int]) -> None:
    async with Aggregates(url) as reader:
        last: dict[str, int] = {}

        async def equal() -> bool:
            nonlocal last
            last = {symbol: m.messages for symbol, m in (await reader.all("24h")).items()}
            return last == expected

        try:
            await eventually(equal, timeout=40, interval=0.1)
        except AssertionError as error:
            raise AssertionError(f"{last} is not the recount {expected}") from error


async def _snapshot(url: str) -> dict[str, dict[str, object]]:
    at = datetime.now(UTC)
    async with Aggregates(url) as reader:
        return {c: (await reader.get(c, at)).model_dump() for c in (*COINS, "MARKET")}


async def test_redis_frozen_for_seconds_loses_nothing_and_counts_nothing_twice(
    kafka: KafkaServer, topics: Topics
) -> None:
    now = datetime.now(UTC)
    values = [_signal(n, now) for n in range(4_000)]
    values += [values[n] for n in range(0, 4_000, 40)]  # repeats that a worker's crash would leave
    async with EmbeddedRedis() as redis:
        settings = await _settings(kafka, topics, redis.url, "frozen")
        async with _aggregation(settings):
            await _produce(kafka, settings, values[:1_500])
            redis.freeze()
            await _produce(kafka, settings, values[1_500:3_000])
            loop = asyncio.get_running_loop()
            thawed = loop.create_future()
            loop.call_later(5.5, thawed.set_result, None)  # longer than the client waits for an answer
            await thawed
            redis.thaw()
            await _produce(kafka, settings, values[3_000:])
            await _equal(redis.url, _recount(values))


async def test_redis_killed_and_back_without_its_data_is_filled_again_from_the_topic(
    kafka: KafkaServer, topics: Topics
) -> None:
    now = datetime.now(UTC)
    values = [_signal(n, now) for n in range(3_000)]
    redis = EmbeddedRedis()
    await redis.start()
    try:
        settings = await _settings(kafka, topics, redis.url, "killed")
        async with _aggregation(settings):
            await _produce(kafka, settings, values[:2_000])
            await _equal(redis.url, _recount(values[:2_000]))
            redis.kill()
            await _produce(kafka, settings, values[2_000:2_500])
            await redis.start()
            await _produce(kafka, settings, values[2_500:])
            await _equal(redis.url, _recount(values))
    finally:
        await redis.stop()


async def test_replaying_the_whole_topic_changes_no_number(kafka: KafkaServer, topics: Topics) -> None:
    now = datetime.now(UTC)
    values = [_signal(n, now) for n in range(2_000)]
    async with EmbeddedRedis() as redis:
        settings = await _settings(kafka, topics, redis.url, "once")
        await _produce(kafka, settings, values)
        async with _aggregation(settings):
            await _equal(redis.url, _recount(values))
        before = await _snapshot(redis.url)

        again = settings.model_copy(
            update={"aggregates": settings.aggregates.model_copy(update={"group_id": "again", "margin": 0})}
        )
        more = [_signal(n, now) for n in range(2_000, 2_100)]
        async with _aggregation(again):  # a group without offsets reads from the beginning
            await _produce(kafka, settings, more)
            await _equal(redis.url, _recount(values + more))
        after = await _snapshot(redis.url)
    for coin in COINS:
        assert before[coin]["windows"] != after[coin]["windows"]  # the new ones did arrive
