"""Signals into Redis under faults, and a recount to hold it against."""

import asyncio
import json
import random
from collections import Counter, defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

from pydantic import SecretStr

from schemas.labels import ACTIONS, EMOTIONS, SENTIMENTS
from tests.kafka_io import produce, read_topic, settings_for
from tests.recount import Recount
from tests.servers import KafkaServer, Topics
from tests.waiting import eventually
from worker.aggregation import Aggregation
from worker.clients import Aggregates
from worker.embedded import EmbeddedRedis
from worker.settings import AggregateSettings, RedisSettings, Settings

COINS = ("BTC", "ETH", "XRP", "SOL")


def make_value(number: int, now: datetime) -> bytes:
    """Signal ``m<number>`` of up to two coins, published within the hour before ``now``."""
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


async def produce_signals(kafka: KafkaServer, settings: Settings, values: list[bytes]) -> None:
    """Keyed as the sink keys, so that a repeat lands on the partition of its original."""
    signals = [json.loads(value) for value in values]
    keys = [(signal["coins"] or [signal["id"]])[0].encode() for signal in signals]
    await produce(kafka.bootstrap_servers, settings.topics.signals, values, keys=keys)


def recount(values: list[bytes]) -> dict[str, int]:
    """Messages of each symbol, every source and id counted once."""
    unique = {(signal["source"], signal["id"]): signal for signal in map(json.loads, values)}
    counts: Counter[str] = Counter()
    for signal in unique.values():
        counts.update(signal["coins"])
        counts["MARKET"] += signal["relevance"] >= 0.4
    return dict(counts)


async def aggregate_settings(kafka: KafkaServer, topics: Topics, redis_url: str, group: str) -> Settings:
    """A signals topic of its own."""
    return settings_for(
        kafka.bootstrap_servers,
        idempotence=kafka.idempotence,
        raw="unused",
        signals=await topics.make("signals", 3),
        dead_letter="also-unused",
        redis=RedisSettings(url=SecretStr(redis_url)),
        aggregates=AggregateSettings(group_id=group, session_timeout=6.0, max_poll_records=300),
    )


@asynccontextmanager
async def running_aggregation(settings: Settings) -> AsyncIterator[None]:
    """The service in this process."""
    stop = asyncio.Event()
    async with Aggregation(settings) as aggregation:
        running = asyncio.create_task(aggregation.run(stop))
        try:
            yield
        finally:
            stop.set()
            await running


async def equals(url: str, expected: dict[str, int]) -> None:
    """Wait until the 24h window has these messages of each symbol, and no others."""
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


async def without_doubtful_ids(kafka: KafkaServer, topics: Topics, settings: Settings) -> Settings:
    """The same with another signals topic, without ids that stand on several partitions.

    Messages of one id and different coins do: which of them counts is the one that is read first.
    """
    records = await read_topic(kafka.bootstrap_servers, settings.topics.signals)
    places: defaultdict[tuple[str, str], set[int]] = defaultdict(set)
    ids = []
    for record in records:
        signal = json.loads(record.value)
        ids.append((signal["source"], signal["id"]))
        places[ids[-1]].add(record.partition)
    sure = [record for record, of in zip(records, ids, strict=True) if len(places[of]) == 1]
    signals = await topics.make("signals", 1 + max(record.partition for record in records))
    await produce(kafka.bootstrap_servers, signals, [r.value for r in sure], keys=[r.key for r in sure])
    return settings.model_copy(update={"topics": settings.topics.model_copy(update={"signals": signals})})


async def equal_a_recount(settings: Settings) -> None:
    """Count the signals as they stand on their topic, repeats and all, into an empty Redis.

    Raises AssertionError unless every number of every window is that of the messages counted once each: the
    first signal of a source and id on a partition counts.
    """
    records = await read_topic(settings.kafka.bootstrap_servers, settings.topics.signals)
    once: dict[tuple[int, str, str], dict[str, Any]] = {}
    for record in records:
        signal = json.loads(record.value)
        once.setdefault((record.partition, signal["source"], signal["id"]), signal)
    async with EmbeddedRedis() as redis:
        own = settings.model_copy(
            update={
                "redis": RedisSettings(url=SecretStr(redis.url)),
                "aggregates": AggregateSettings(
                    group_id=f"aggregates-{settings.topics.signals}", session_timeout=6.0
                ),
            }
        )
        async with running_aggregation(own), Aggregates(redis.url) as reader:
            missing: dict[str, tuple[int, int]] = {}
            last: dict[str, int] = {}

            async def complete() -> bool:
                nonlocal missing, last
                now = datetime.now(UTC)
                counted = {symbol: m.messages for symbol, m in (await reader.all("7d", now)).items()}
                # Once it stands still: a recount of 200,000 stops this loop, the service's too, for seconds.
                if counted != last or not any(counted.values()):
                    last = counted
                    return False
                missing = Recount(once.values(), now).differences("7d", counted)
                return not missing

            try:
                await eventually(complete, timeout=60, interval=0.2)
            except AssertionError as error:
                raise AssertionError(f"aggregates (found, recount) by symbol: {missing}") from error
            now = datetime.now(UTC)
            right = Recount(once.values(), now)
            right.check_all({symbol: (await reader.get(symbol, now)).windows for symbol in right.symbols})
