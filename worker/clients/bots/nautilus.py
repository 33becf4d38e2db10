"""NautilusTrader: signals as a data type of their own, and a data client that reads the topic.

Import it only where ``nautilus_trader`` is installed.
"""

import asyncio
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any, Final

from nautilus_trader.cache.cache import Cache
from nautilus_trader.common.component import LiveClock, MessageBus
from nautilus_trader.config import LiveDataClientConfig
from nautilus_trader.core.data import Data
from nautilus_trader.data.messages import SubscribeData, UnsubscribeData
from nautilus_trader.live.data_client import LiveDataClient
from nautilus_trader.live.factories import LiveDataClientFactory
from nautilus_trader.model.custom import customdataclass
from nautilus_trader.model.data import CustomData, DataType
from nautilus_trader.model.identifiers import ClientId

from schemas.labels import POLARITY
from schemas.signals import CryptoSignal
from schemas.topics import SIGNALS_CRYPTO
from worker.clients.signals import SignalStream

CLIENT: Final = "KBERT"
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


@customdataclass
class CryptoSignalData(Data):
    """One signal about one coin.

    ``ts_event`` is when the message was published; ``ts_init`` when the signal could be known:
    ``processed_at`` in recorded data, the moment of arrival live. Back tests go by ``ts_init``.
    """

    coin: str = ""
    message_id: str = ""
    sentiment: str = "neutral"
    action: str = "info_only"
    polarity: float = 0.0
    certainty: float = 0.0
    relevance: float = 0.0
    toxicity: float = 0.0

    @property
    def weight(self) -> float:
        """Relevance x certainty, as the aggregates weigh it."""
        return self.relevance * self.certainty


def data_type(coin: str) -> DataType:
    """What a strategy subscribes to: the signals about one coin."""
    return DataType(CryptoSignalData, metadata={"coin": coin})


def nautilus_data(signals: Iterable[CryptoSignal], received: int | None = None) -> list[CustomData]:
    """Signals as Nautilus data, one for each coin that a signal names, in the order of ``ts_init``.

    Args:
        signals: repeats, by source and id, are left out.
        received: ``ts_init`` in nanoseconds; by default each signal's own ``processed_at``.
    """
    made = []
    seen: set[tuple[str, str]] = set()
    for signal in signals:
        if (signal.source, signal.id) in seen:
            continue
        seen.add((signal.source, signal.id))
        for coin in dict.fromkeys(signal.coins):
            data = CryptoSignalData(
                ts_event=_nanoseconds(signal.published_at),
                ts_init=_nanoseconds(signal.processed_at) if received is None else received,
                coin=coin,
                message_id=signal.id,
                sentiment=signal.sentiment_strength,
                action=signal.action_signal,
                polarity=POLARITY[signal.sentiment_strength],
                certainty=signal.certainty,
                relevance=signal.relevance,
                toxicity=signal.toxicity,
            )
            made.append(CustomData(data_type(coin), data))
    return sorted(made, key=lambda one: one.ts_init)


class KbertDataClientConfig(LiveDataClientConfig, frozen=True):  # type: ignore[call-arg]
    """How to reach the signals.

    Args:
        bootstrap_servers: ``host:port``, several joined by commas.
        topic: the signals topic.
        min_certainty: only signals at least as certain.
        min_relevance: only signals at least as relevant.
        client_options: further keyword arguments of an aiokafka client, such as TLS and SASL.
    """

    bootstrap_servers: str = "127.0.0.1:9092"
    topic: str = SIGNALS_CRYPTO
    min_certainty: float = 0.0
    min_relevance: float = 0.0
    client_options: dict[str, Any] = {}  # noqa: RUF012 - msgspec copies it


class KbertDataClient(LiveDataClient):
    """Publishes every new signal about a subscribed coin to the message bus of a trading node."""

    def __init__(  # noqa: PLR0917 - as the factory's caller orders them
        self,
        loop: asyncio.AbstractEventLoop,
        msgbus: MessageBus,
        cache: Cache,
        clock: LiveClock,
        config: KbertDataClientConfig,
        name: str | None = None,
    ) -> None:
        super().__init__(
            loop=loop,
            client_id=ClientId(name or CLIENT),
            venue=None,
            msgbus=msgbus,
            cache=cache,
            clock=clock,
            config=config,
        )
        self._kbert = config
        self._stream: SignalStream | None = None
        self._following: asyncio.Task[None] | None = None
        self._coins: set[str] = set()

    async def _connect(self) -> None:
        chosen = self._kbert
        self._stream = SignalStream(
            chosen.bootstrap_servers,
            topic=chosen.topic,
            min_certainty=chosen.min_certainty,
            min_relevance=chosen.min_relevance,
            **chosen.client_options,
        )
        await self._stream.__aenter__()
        self._following = self.create_task(self._follow(self._stream))

    async def _disconnect(self) -> None:
        if self._following is not None:
            self._following.cancel()
            await asyncio.wait((self._following,))
        if self._stream is not None:
            await self._stream.__aexit__(None, None, None)

    async def _subscribe(self, command: SubscribeData) -> None:
        self._coins.add(_coin(command.data_type))

    async def _unsubscribe(self, command: UnsubscribeData) -> None:
        self._coins.discard(_coin(command.data_type))

    async def _follow(self, stream: SignalStream) -> None:
        async for signal in stream:
            for data in nautilus_data([signal], self._clock.timestamp_ns()):
                if data.data.coin in self._coins:
                    self._handle_data(data)


class KbertDataClientFactory(LiveDataClientFactory):
    """For ``TradingNode.add_data_client_factory``."""

    @staticmethod
    def create(  # noqa: PLR0917 - NautilusTrader's own signature
        loop: asyncio.AbstractEventLoop,
        name: str,
        config: KbertDataClientConfig,
        msgbus: MessageBus,
        cache: Cache,
        clock: LiveClock,
    ) -> KbertDataClient:
        """A client as the node's builder asks for it."""
        return KbertDataClient(loop, msgbus, cache, clock, config, name)


def _coin(wanted: DataType) -> str:
    if wanted.type is not CryptoSignalData or "coin" not in wanted.metadata:
        raise ValueError(f"{wanted} is no subscription to signals: use data_type(coin)")
    return str(wanted.metadata["coin"])


def _nanoseconds(moment: datetime) -> int:
    passed = moment - _EPOCH
    return (passed.days * 86_400 + passed.seconds) * 1_000_000_000 + passed.microseconds * 1_000
