"""A server in this process over the tests' Kafka and Redis, and signals for it."""

import asyncio
import math
import random
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import httpx
import orjson
from pydantic import SecretStr

from schemas.labels import ACTIONS, EMOTIONS, SENTIMENTS
from tests.kafka_io import produce, settings_for
from tests.servers import KafkaServer, Topics
from tests.waiting import eventually
from worker.app import run_services
from worker.clients import Aggregates, Narrative, SignalStream
from worker.coins import load_catalogue
from worker.embedded import free_port
from worker.serve.hub import Hub
from worker.serve.recent import RecentSignals
from worker.serve.state import ServeState
from worker.settings import AggregateSettings, RedisSettings, ServeSettings, Settings

INJECTION = '<img src=x onerror="window.pwned=1"><script>window.pwned=1</script> {{7*7}} 비트코인'

_NAMES = {
    "BTC": "비트", "ETH": "이더", "XRP": "리플", "SOL": "솔라나", "DOGE": "도지",
    "ADA": "에이다", "PEPE": "페페", "SUI": "수이", "TRX": "트론",
}  # fmt: skip
_SAID: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "strong_pos": (("buy", "buy", "hold"), ("{} 지금이라도 탑승해야됨", "{} 전고점 뚫는다 풀매수")),
    "weak_pos": (("hold", "buy", "info_only"), ("{} 슬슬 반등 나오는 듯", "{} 존버하면 언젠가 간다")),
    "neutral": (("ask_info", "info_only", "hold"), ("{} 지금 들어가도 되나요?", "[속보] {} 공청회 내일")),
    "weak_neg": (("avoid", "hold", "sell"), ("{} 좀 더 빠질 것 같은데", "고래가 또 {} 던지네 조심하세요")),
    "strong_neg": (("sell", "sell", "avoid"), ("{} 손절했다 진짜 화난다", "{} 끝났다 다 도망쳐")),
}  # fmt: skip


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
    signals = []
    for number in range(count):
        at = now - timedelta(days=7.9) * rng.random()
        coin = rng.choice(coins)
        mood = 0.6 * math.sin(at.timestamp() / 30_000 + len(coin) + ord(coin[0]))
        weights = [max(0.03, w) for w in (mood, mood / 2 + 0.2, 0.3, 0.2 - mood / 2, -mood)]
        sentiment = rng.choices(SENTIMENTS, weights)[0]
        actions, texts = _SAID[sentiment]
        signals.append(
            full_signal(
                number,
                at,
                (coin,),
                source=rng.choice(("텔레그램", "게시판", "속보")),
                sentiment_strength=sentiment,
                action_signal=rng.choice(actions),
                emotions=rng.sample(EMOTIONS, rng.choice((0, 1, 1, 2))),
                certainty=round(rng.betavariate(3, 2), 3),
                relevance=round(rng.betavariate(4, 1.5), 3),
                toxicity=round(rng.betavariate(1, 5), 3),
                author_hash=f"{rng.randrange(300):016x}",
                text=rng.choice(texts).format(_NAMES[coin]),
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


def state_over(redis: Any, *, streams: int = 1) -> ServeState:
    """What the routes need, over an object in the place of Redis and Kafka."""
    return ServeState(
        aggregates=cast(Aggregates, redis),
        narrative=cast(Narrative, redis),
        catalogue=load_catalogue(None),
        hub=Hub(queue=5, streams=streams),
        recent=RecentSignals(10),
        kafka=cast(SignalStream, redis),
    )


def now() -> datetime:
    """The present, in UTC."""
    return datetime.now(UTC)
