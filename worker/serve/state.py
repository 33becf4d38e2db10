"""What the routes share."""

import asyncio
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final

import orjson

from schemas.aggregates import AggregateChange, BoardRow, CoinAggregates, Series
from schemas.signals import CryptoSignal
from schemas.windows import Window
from worker.clients import Aggregates, Narrative, SignalStream
from worker.coins.catalogue import Catalogue
from worker.errors import ConnectionFailedError
from worker.serve.answers import Sort
from worker.serve.fresh import Fresh
from worker.serve.hub import Event, Hub
from worker.serve.recent import RecentSignals

_CHECK_SECONDS: Final = 2.0
"""As Kafka's check: a probe that waited behind readers of a silent Redis took a minute."""


@dataclass
class Board:
    """Every coin over one window, with its answers, so that they grow no older than it."""

    as_of: datetime
    rows: list[BoardRow]
    answers: dict[Sort, bytes] = field(default_factory=dict)
    """JSON of each order that was asked for."""
    gzipped: dict[Sort, bytes] = field(default_factory=dict)
    """The same for who takes gzip."""


@dataclass
class ServeState:
    """One process: the connection to Redis, the hub, and what is kept in memory."""

    aggregates: Aggregates
    narrative: Narrative
    catalogue: Catalogue
    hub: Hub
    recent: RecentSignals
    kafka: SignalStream
    problem: str | None = None
    """Why the last probe found the server not ready."""
    probes: Fresh[None] = field(default_factory=lambda: Fresh(fresh=0.0, usable=0.0))
    boards: Fresh[Board] = field(default_factory=lambda: Fresh(fresh=1.0, usable=5.0))
    months: Fresh[bytes] = field(default_factory=lambda: Fresh(fresh=1.0, usable=1.0))
    coins: Fresh[CoinAggregates] = field(default_factory=lambda: Fresh(fresh=0.5, usable=5.0))
    series: Fresh[Series] = field(default_factory=lambda: Fresh(fresh=1.0, usable=5.0))

    async def board(self, window: Window) -> Board:
        """Every coin over one window, and when it was read."""
        at = datetime.now(UTC)
        return Board(at, await self.aggregates.board(window))

    async def check(self) -> None:
        """Raise ConnectionFailedError where Redis or Kafka does not answer."""
        try:
            async with asyncio.timeout(_CHECK_SECONDS):
                await self.aggregates.check()
        except TimeoutError as error:
            raise ConnectionFailedError(
                f"Redis does not answer within {_CHECK_SECONDS:g} s: see to the server at redis.url."
            ) from error
        await self.kafka.check()

    def signal(self, signal: CryptoSignal, *, live: bool) -> None:
        """A signal of the topic; ``live`` where it is new, and not read again from before the start."""
        body = signal.model_dump_json().encode()
        self.recent.add(signal, body)
        if live:
            self.hub.publish(Event("signal", body, signal=signal))

    def change(self, change: AggregateChange) -> None:
        """Aggregates that changed."""
        body = orjson.dumps(change.model_dump(mode="json"))
        self.hub.publish(Event("aggregates", body, symbols=change.symbols))
