"""hummingbot: probabilities for its controller ``ai_livestream``, over MQTT."""

import asyncio
import contextlib
import ssl
import time
from typing import TYPE_CHECKING, Final

import orjson
import structlog

from schemas.aggregates import WindowMetrics
from worker.clients.aggregates import Aggregates
from worker.clients.bots.markets import Markets
from worker.errors import ConfigurationError, ConnectionFailedError, KbertError
from worker.settings import HummingbotSettings

if TYPE_CHECKING:
    import aiomqtt

log = structlog.get_logger(__name__)

Probabilities = tuple[float, float, float]
NEUTRAL: Final[Probabilities] = (0.0, 1.0, 0.0)

_RETRY_SECONDS: Final = 2.0
_AT_LEAST_ONCE: Final = 1


def probabilities(metrics: WindowMetrics, least: int) -> Probabilities:
    """Short, neutral and long, which sum to one: a strong sentiment counts whole, a weak one half.

    Their difference long - short is the mean polarity of the window's messages; neutral where
    fewer than ``least`` came.
    """
    if metrics.messages < least or metrics.sentiment_share is None:
        return NEUTRAL
    share = metrics.sentiment_share
    long = share["strong_pos"] + share["weak_pos"] / 2
    short = share["strong_neg"] + share["weak_neg"] / 2
    return short, max(0.0, 1.0 - short - long), long


class HummingbotPublisher:
    """Publishes one message a pair and interval, never retained.

    The controller acts on the last message that it got, so the last one is neutral: sent at the
    end, whatever ends it, and by the broker (as the connection's will) when this process dies.

    Args:
        aggregates: open.
        markets: which coin a pair is.
        settings: broker, pairs, window.

    Raises:
        MarketError: a pair names no coin of the catalogue.
    """

    def __init__(self, aggregates: Aggregates, markets: Markets, settings: HummingbotSettings) -> None:
        self._aggregates = aggregates
        self._settings = settings
        self._coins = {pair: markets.market(pair, "hummingbot").symbol for pair in settings.pairs}

    async def run(self, stop: asyncio.Event) -> None:
        """Publish until ``stop`` is set; a lost broker is tried again.

        Raises:
            ConnectionFailedError: no broker answers at the start.
            ConfigurationError: Redis refuses us, be it later.
        """
        ended = asyncio.Event()

        async def follow(pair: str) -> None:
            try:
                await self._follow(pair, ended)
            finally:
                # Cancelling the others may not do: up to Python 3.11 asyncio.wait_for, where aiomqtt waits,
                # forgets a cancellation that comes together with its answer.
                ended.set()

        # A connection of its own for each pair: MQTT has one will a connection.
        try:
            async with asyncio.TaskGroup() as group:
                pairs = [group.create_task(follow(pair)) for pair in self._coins]
                stopping = group.create_task(stop.wait())
                stopping.add_done_callback(lambda _: ended.set())
                await asyncio.wait(pairs)
                stopping.cancel()
        except* KbertError as errors:
            raise errors.exceptions[0] from errors

    async def _follow(self, pair: str, stop: asyncio.Event) -> None:
        import aiomqtt

        known = False
        while not stop.is_set():
            try:
                async with self._client(pair) as client:
                    if not known:
                        log.info("hummingbot.ready", topic=self.topic(pair))
                    known = True
                    try:
                        while not stop.is_set():
                            await client.publish(self.topic(pair), await self._message(pair), _AT_LEAST_ONCE)
                            await _stopped_within(stop, self._settings.interval)
                    finally:
                        # Leaving says goodbye to the broker, which then sends no will; a lost one sends it.
                        with contextlib.suppress(aiomqtt.MqttError):
                            neutral = self._payload(NEUTRAL)
                            await asyncio.shield(client.publish(self.topic(pair), neutral, _AT_LEAST_ONCE))
            except aiomqtt.MqttError as error:
                if not known:
                    raise ConnectionFailedError(
                        f"No MQTT broker answers at {self._settings.host}:{self._settings.port}: start one, "
                        f"or correct bot.hummingbot.host, port, username or password ({error})."
                    ) from error
                log.warning("hummingbot.broker_lost", pair=pair, error=str(error))
                await _stopped_within(stop, _RETRY_SECONDS)

    def topic(self, pair: str) -> str:
        """Where the controller of a pair listens."""
        return f"{self._settings.topic}/{pair.replace('-', '_').lower()}/ML_SIGNALS"

    def _client(self, pair: str) -> "aiomqtt.Client":
        import aiomqtt

        chosen = self._settings
        return aiomqtt.Client(
            chosen.host,
            chosen.port,
            username=chosen.username,
            password=chosen.password.get_secret_value() if chosen.password else None,
            tls_context=ssl.create_default_context() if chosen.tls else None,
            will=aiomqtt.Will(self.topic(pair), self._payload(NEUTRAL), _AT_LEAST_ONCE),
        )

    async def _message(self, pair: str) -> bytes:
        try:
            coin = await self._aggregates.get(self._coins[pair])
        except ConfigurationError:
            raise  # no waiting mends it
        except KbertError as error:
            log.warning("hummingbot.neutral", pair=pair, reason=str(error))
            return self._payload(NEUTRAL)
        return self._payload(probabilities(coin.windows[self._settings.window], self._settings.least))

    def _payload(self, chances: Probabilities) -> bytes:
        return orjson.dumps(
            {
                "timestamp": time.time(),
                "probabilities": chances,
                "target_pct": self._settings.target_pct,
            }
        )


async def _stopped_within(stop: asyncio.Event, seconds: float) -> None:
    try:
        async with asyncio.timeout(seconds):
            await stop.wait()
    except TimeoutError:
        return
