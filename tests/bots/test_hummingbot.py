"""The MQTT messages of hummingbot's ai_livestream, through a real broker."""

import asyncio
import json
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from schemas.aggregates import CoinAggregates
from schemas.labels import SENTIMENTS
from tests.processes import kbert
from tests.serving import full_signal
from tests.waiting import eventually
from worker.aggregates.project import Aggregator
from worker.aggregates.store import RedisStore
from worker.clients import Aggregates
from worker.commands.bot_hummingbot import run_hummingbot
from worker.embedded import free_port
from worker.errors import ConfigurationError, ConnectionFailedError, KbertError
from worker.settings import BotSettings, HummingbotSettings, RedisSettings, Settings

REASON = "amqtt holds websockets back: `make bots` installs it"
amqtt_broker = pytest.importorskip("amqtt.broker", reason=REASON)
aiomqtt = pytest.importorskip("aiomqtt", reason=REASON)

TOPIC = "hbot/predictions/btc_krw/ML_SIGNALS"


@asynccontextmanager
async def broker(port: int) -> AsyncIterator[None]:
    plugins = {"amqtt.plugins.authentication.AnonymousAuthPlugin": {"allow_anonymous": True}}
    config = {"listeners": {"default": {"type": "tcp", "bind": f"127.0.0.1:{port}"}}, "plugins": plugins}
    running = amqtt_broker.Broker(config)
    await running.start()
    try:
        yield
    finally:
        await running.shutdown()


class Controller:
    """What `ai_livestream` does with a message: `_handle_ml_signal` of hummingbot, with its thresholds."""

    def __init__(self) -> None:
        self.signals: list[int] = []
        self.messages: list[dict[str, Any]] = []

    def handle(self, payload: bytes) -> None:
        message = json.loads(payload)
        short, _, long = message["probabilities"]
        self.messages.append(message)
        self.signals.append(-1 if short > 0.5 else 1 if long > 0.5 else 0)


@asynccontextmanager
async def listening(port: int, topic: str = TOPIC) -> AsyncIterator[Controller]:
    controller = Controller()
    async with aiomqtt.Client("127.0.0.1", port) as client:
        await client.subscribe(topic, qos=1)

        async def read() -> None:
            async for message in client.messages:
                assert not message.retain
                controller.handle(message.payload)

        reading = asyncio.create_task(read())
        try:
            yield controller
        finally:
            reading.cancel()
            await asyncio.wait((reading,))


def settings_for(redis_url: str, redis_prefix: str, port: int, **fields: Any) -> Settings:
    chosen = HummingbotSettings(**{"port": port, "interval": 0.1, **fields})
    return Settings(
        _env_file=None,
        redis=RedisSettings(url=SecretStr(redis_url), prefix=redis_prefix),
        bot=BotSettings(hummingbot=chosen),
    )


async def say(redis_url: str, redis_prefix: str, start: int, **counts: int) -> None:
    at = datetime.now(UTC) - timedelta(minutes=1)
    moods = [mood for mood in SENTIMENTS for _ in range(counts.get(mood, 0))]
    signals = [full_signal(start + n, at, ("BTC",), sentiment_strength=mood) for n, mood in enumerate(moods)]
    async with RedisStore(redis_url) as store:
        aggregator = Aggregator(store, prefix=redis_prefix)
        await aggregator.apply({("signals", 0): list(enumerate(signals, start))})


async def test_the_controller_goes_short_neutral_and_long(redis_url: str, redis_prefix: str) -> None:
    port = free_port()
    settings = settings_for(redis_url, redis_prefix, port, pairs=("BTC-KRW", "ETH-USDT"), target_pct=0.02)
    stop = asyncio.Event()
    async with broker(port), listening(port) as controller, listening(port, "hbot/#") as everything:
        running = asyncio.create_task(run_hummingbot(settings, stop))
        await eventually(lambda: controller.messages)
        assert controller.messages[-1]["probabilities"] == [0, 1, 0]
        assert controller.messages[-1]["target_pct"] == 0.02
        assert abs(controller.messages[-1]["timestamp"] - datetime.now(UTC).timestamp()) < 60
        await say(redis_url, redis_prefix, 0, strong_neg=3)
        seen = len(controller.messages)
        await eventually(lambda: len(controller.messages) > seen + 2)
        assert controller.signals[-1] == 0  # three are fewer than the least
        await say(redis_url, redis_prefix, 100, strong_neg=2, weak_neg=2, weak_pos=1)
        await eventually(lambda: controller.signals[-1] == -1)
        assert controller.messages[-1]["probabilities"] == pytest.approx([6 / 8, 1.5 / 8, 0.5 / 8])
        await say(redis_url, redis_prefix, 200, strong_pos=20)
        await eventually(lambda: controller.signals[-1] == 1)
        stop.set()
        await running
        await eventually(lambda: controller.signals[-1] == 0, what="neutral at the end")
        await eventually(lambda: len(everything.messages) > len(controller.messages), what="the other pair")


async def test_a_lost_broker_is_tried_again(redis_url: str, redis_prefix: str) -> None:
    port = free_port()
    stop = asyncio.Event()
    async with broker(port), listening(port) as controller:
        running = asyncio.create_task(run_hummingbot(settings_for(redis_url, redis_prefix, port), stop))
        await eventually(lambda: controller.messages)
    async with broker(port), listening(port) as controller:
        await eventually(lambda: controller.messages, timeout=60)
        stop.set()
        await running


async def test_a_killed_publisher_leaves_neutral_behind(
    redis_url: str, redis_prefix: str, tmp_path: Path
) -> None:
    port = free_port()
    await say(redis_url, redis_prefix, 0, strong_pos=20)
    settings = settings_for(redis_url, redis_prefix, port)
    plain = settings.model_copy(update={"bot": BotSettings()})
    environment: dict[str, Any] = {
        "KBERT_BOT__HUMMINGBOT__PORT": str(port),
        "KBERT_BOT__HUMMINGBOT__INTERVAL": "0.1",
    }
    async with broker(port), listening(port) as controller:
        with kbert(["bot", "hummingbot"], plain, tmp_path / "log", **environment) as process:
            await eventually(lambda: 1 in controller.signals, timeout=60)
            process.send(signal.SIGKILL)
            process.wait()
            await eventually(lambda: controller.signals[-1] == 0, what="the will")


@pytest.mark.parametrize("failing", ["BTC", "ETH"])
async def test_an_error_of_one_pair_leaves_all_of_them_neutral(
    failing: str, redis_url: str, redis_prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Redis refuses us later on: the bot ends, and says a last word for each pair first."""
    port, stop = free_port(), asyncio.Event()
    settings = settings_for(redis_url, redis_prefix, port, pairs=("BTC-KRW", "ETH-KRW"))
    await say(redis_url, redis_prefix, 0, strong_pos=20)
    refused = False
    get = Aggregates.get

    async def getting(self: Aggregates, symbol: str, at: datetime | None = None) -> CoinAggregates:
        if refused and symbol == failing:
            raise ConfigurationError("Redis refuses us: correct user and password.")
        return await get(self, symbol, at)

    monkeypatch.setattr(Aggregates, "get", getting)
    async with broker(port), listening(port) as controller:
        running = asyncio.create_task(run_hummingbot(settings, stop))
        await eventually(lambda: 1 in controller.signals, what="long")
        refused = True
        with pytest.raises(ConfigurationError, match="refuses us"):
            await asyncio.wait_for(running, 20)
        await eventually(lambda: controller.signals[-1] == 0, what="neutral at the end")


async def test_other_errors_of_reading_are_no_answer(
    redis_url: str, redis_prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    port, stop = free_port(), asyncio.Event()
    await say(redis_url, redis_prefix, 0, strong_pos=20)
    get = Aggregates.get

    async def away(self: Aggregates, symbol: str, at: datetime | None = None) -> CoinAggregates:
        raise KbertError("Redis does something else.")

    async with broker(port), listening(port) as controller:
        running = asyncio.create_task(run_hummingbot(settings_for(redis_url, redis_prefix, port), stop))
        await eventually(lambda: 1 in controller.signals, what="long")
        monkeypatch.setattr(Aggregates, "get", away)
        await eventually(lambda: controller.signals[-1] == 0, what="neutral")
        monkeypatch.setattr(Aggregates, "get", get)
        await eventually(lambda: controller.signals[-1] == 1, what="long again")
        stop.set()
        await running


async def test_what_cannot_work_is_said_at_the_start(redis_url: str, redis_prefix: str) -> None:
    with pytest.raises(ConnectionFailedError, match=r"No MQTT broker answers"):
        await run_hummingbot(settings_for(redis_url, redis_prefix, free_port()), asyncio.Event())
    with pytest.raises(ConfigurationError, match="written like BTC-KRW"):
        await run_hummingbot(settings_for(redis_url, redis_prefix, 1, pairs=("BTC/KRW",)), asyncio.Event())
