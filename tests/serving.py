"""A server in this process over the tests' Kafka and Redis, and signals for it."""

import asyncio
import math
import random
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import orjson
from pydantic import SecretStr

from schemas.labels import ACTIONS, EMOTIONS, SENTIMENTS
from tests.kafka_io import produce, settings_for
from tests.servers import KafkaServer, Topics
from tests.waiting import eventually
from worker.app import run_services
from worker.embedded import free_port
from worker.settings import AggregateSettings, RedisSettings, ServeSettings, Settings

INJECTION = '<img src=x onerror="window.pwned=1"><script>window.pwned=1</script> {{7*7}} 비트코인'


def full_signal(number: int, at: datetime, coins: Sequence[str] = ("BTC",), **fields: Any) -> dict[str, Any]:
    """A whole signal as JSON gives it."""
    time = at.isoformat().replace("+00:00", "Z")
    return {
        "id": f"message-{number}",
        "source": "room",
        "kind": "chat",
        "published_at": time,
        "processed_at": time,
        "coins": list(coins),
        "sentiment_strength": "weak_pos",
        "action_signal": "buy",
        "emotions": ["hope"],
        "certainty": 0.8,
        "relevance": 0.9,
        "toxicity": 0.1,
        "scores": {
            "sentiment_strength": dict.fromkeys(SENTIMENTS, 0.2),
            "action_signal": dict.fromkeys(ACTIONS, 0.1),
            "emotions": dict.fromkeys(EMOTIONS, 0.1),
        },
        "model": {"name": "fake", "revision": "0"},
        "truncated": False,
        "author_hash": f"{number % 41:016x}",
        "text": "비트 간다",
    } | fields


def week_of_signals(now: datetime, count: int, seed: int = 5) -> list[dict[str, Any]]:
    """A week of chatter about a dozen coins, each with a mood of its own that swings."""
    rng = random.Random(seed)
    coins = ("BTC", "BTC", "BTC", "ETH", "ETH", "XRP", "XRP", "SOL", "DOGE", "ADA", "PEPE", "SUI", "TRX")
    texts = (
        "비트 지금이라도 탑승해야됨",
        "고래가 또 물량 던지네 조심하세요 여러분",
        "솔라나 지금 들어가도 되나요?",
        "도지 물렸는데 존버한다",
        "[속보] 금융위, 가상자산 2단계 입법안 발표",
        "오늘 저녁 컨퍼런스 기대되네요",
    )
    signals = []
    for number in range(count):
        at = now - timedelta(days=7.9) * rng.random()
        coin = rng.choice(coins)
        mood = 0.6 * math.sin(at.timestamp() / 30_000 + len(coin) + ord(coin[0]))
        weights = [max(0.03, w) for w in (mood, mood / 2 + 0.2, 0.3, 0.2 - mood / 2, -mood)]
        signals.append(
            full_signal(
                number,
                at,
                (coin,),
                source=rng.choice(("텔레그램", "게시판", "속보")),
                sentiment_strength=rng.choices(SENTIMENTS, weights)[0],
                action_signal=rng.choice(ACTIONS),
                emotions=rng.sample(EMOTIONS, rng.choice((0, 1, 1, 2))),
                certainty=round(rng.betavariate(3, 2), 3),
                relevance=round(rng.betavariate(4, 1.5), 3),
                toxicity=round(rng.betavariate(1, 5), 3),
                author_hash=f"{rng.randrange(300):016x}",
                text=rng.choice(texts),
            )
        )
    return sorted(signals, key=lambda signal: str(signal["published_at"]))


async def serve_settings(
    kafka: KafkaServer, topics: Topics, redis_url: str, redis_prefix: str, **serve: Any
) -> Settings:
    """Settings of a server with topics and keys of its own."""
    signals = await topics.make("signals", 2)
    return settings_for(
        kafka.bootstrap_servers,
        idempotence=kafka.idempotence,
        raw=await topics.make("raw"),
        signals=signals,
        dead_letter=await topics.make("dead"),
        redis=RedisSettings(url=SecretStr(redis_url), prefix=redis_prefix),
        aggregates=AggregateSettings(group_id=f"aggregates-{signals}", session_timeout=6.0),
        serve=ServeSettings(port=free_port(), **serve),
    )


@asynccontextmanager
async def serving(settings: Settings, *services: str) -> AsyncIterator[str]:
    """The services (aggregates and serve by default) until the block ends; gives the address."""
    stop = asyncio.Event()
    names = list(services) or ["aggregates", "serve"]
    running = asyncio.create_task(run_services(settings, names, stop))
    address = f"http://127.0.0.1:{settings.serve.port}"

    async def ready() -> bool:
        if running.done():
            running.result()
        try:
            async with httpx.AsyncClient() as client:
                return (await client.get(f"{address}/readyz")).status_code == 200
        except httpx.TransportError:
            return False

    try:
        await eventually(ready, timeout=40, what="the server")
        yield address
    finally:
        stop.set()
        await running


async def send(settings: Settings, *signals: dict[str, Any]) -> None:
    """Write signals as a worker would."""
    await produce(
        settings.kafka.bootstrap_servers,
        settings.topics.signals,
        [orjson.dumps(signal) for signal in signals],
        keys=[signal["coins"][0].encode() if signal["coins"] else None for signal in signals],
    )


def now() -> datetime:
    """The present, in UTC."""
    return datetime.now(UTC)
