"""Aggregates as a bot reads them."""

import asyncio
from collections.abc import AsyncGenerator, Mapping, Sequence
from datetime import datetime
from types import TracebackType
from typing import Any, Self

import structlog
from pydantic import ValidationError
from redis.exceptions import RedisClusterException, RedisError

from schemas.aggregates import AggregateChange, BoardRow, CoinAggregates, Series, WindowMetrics
from schemas.windows import Window
from worker.aggregates.keys import DEFAULT_PREFIX, Keys
from worker.aggregates.reader import AggregateReader
from worker.aggregates.series import plan_series
from worker.aggregates.store import RedisStore
from worker.telemetry.seldom import Seldom

log = structlog.get_logger(__name__)

_POLL_SECONDS = 1.0
_FIRST_PAUSE_SECONDS = 0.05
_LONGEST_PAUSE_SECONDS = 2.0


class Aggregates:
    """Reads the rolling windows; use it as an async context manager.

    ::

        async with Aggregates("redis://127.0.0.1:6379/0") as aggregates:
            bitcoin = await aggregates.get("BTC")
            print(bitcoin.windows["1h"].sentiment_index)

    Args:
        url: ``redis://[user:password@]host:port/db``; ``rediss://`` for TLS.
        prefix: what the writer puts before every key.
        cluster: whether ``url`` is a node of a Redis Cluster.
        client_options: further keyword arguments of a redis-py client, such as ``username``,
            ``password`` and ``ssl_ca_certs``.

    Entering raises ConnectionFailedError where Redis does not answer, and
    ConfigurationError where it refuses; every read may raise ConnectionFailedError.
    """

    def __init__(
        self,
        url: str,
        prefix: str = DEFAULT_PREFIX,
        cluster: bool = False,
        *,
        client_options: Mapping[str, Any] | None = None,
    ) -> None:
        self._keys = Keys(prefix)
        self._store = RedisStore(url, cluster=cluster, client_options=client_options)
        self._reader = AggregateReader(self._store, self._keys)

    async def coins(self) -> list[str]:
        """Symbols that ever had a signal, sorted; the pseudo-symbol MARKET is not among them."""
        return await self._reader.coins()

    async def get(self, symbol: str, at: datetime | None = None) -> CoinAggregates:
        """Every window of one coin, or of ``"MARKET"``; zeros and nulls where nothing is known.

        Args:
            symbol: ticker, as in ``CryptoSignal.coins``.
            at: when the windows end; now by default, at most an hour ago.
        """
        return await self._reader.coin(symbol, at)

    async def all(self, window: Window = "1h", at: datetime | None = None) -> dict[str, WindowMetrics]:
        """One window of ``"MARKET"`` and of every coin, by symbol."""
        return await self._reader.window(window, at)

    async def board(self, window: Window = "1h") -> list[BoardRow]:
        """One window of ``"MARKET"`` and of every coin, each with its latest past as a sparkline."""
        return await self._reader.board(window)

    async def series(
        self,
        symbol: str,
        metrics: Sequence[str] = ("sentiment_index", "messages"),
        window: Window = "1h",
        *,
        since: datetime | None = None,
        until: datetime | None = None,
        step: int | None = None,
    ) -> Series:
        """Windows of one coin over time, oldest first.

        Args:
            symbol: ticker, or ``"MARKET"``.
            metrics: names in `worker.aggregates.series.METRICS`.
            window: which window each point is.
            since: first point; a day or what the window can reach by default.
            until: last point, now by default.
            step: seconds between points, whole minutes; by default some 200 points.

        Raises:
            SeriesError: a metric is unknown, or the buckets do not reach as fine or as far.
        """
        return await self._reader.series(
            symbol, metrics, plan_series(window, since=since, until=until, step=step)
        )

    async def check(self) -> None:
        """Raise ConnectionFailedError where Redis does not answer."""
        await self._store.check(self._keys.prefix)

    async def changes(self) -> AsyncGenerator[AggregateChange, None]:
        """What changed, after each applied batch, from now on and without end.

        After an outage it goes on by itself; what changed meanwhile is not told.

        Raises:
            ConnectionFailedError: Redis does not answer at the start.
            ConfigurationError: Redis refuses us, at the start or later: user, password or rights.
        """
        await self._store.check(self._keys.prefix)
        seldom = Seldom(log)
        pause = _FIRST_PAUSE_SECONDS
        while True:
            try:
                async with self._store.client.pubsub(ignore_subscribe_messages=True) as channel:
                    await channel.subscribe(self._keys.changes)
                    while True:
                        message = await channel.get_message(timeout=_POLL_SECONDS)
                        pause = _FIRST_PAUSE_SECONDS
                        if message is not None:
                            yield AggregateChange.model_validate_json(message["data"])
            except ValidationError as error:
                seldom.warning("aggregates.change_unreadable", error=str(error))
            except (RedisError, RedisClusterException, OSError) as error:
                self._store.raise_if_lasting(error)
                seldom.warning("aggregates.changes_interrupted", error=str(error))
                await asyncio.sleep(pause)
                pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)

    async def __aenter__(self) -> Self:
        try:
            await self._store.check(self._keys.prefix)
        except BaseException:
            await self._store.aclose()
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._store.aclose()
