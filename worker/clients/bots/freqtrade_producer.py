"""freqtrade's message websocket: rolling windows as the analysed candles of a producer bot.

A stock freqtrade reads them by its setting ``external_message_consumer``, and a strategy by
``self.dp.get_producer_df``. The messages are those of freqtrade's own producers: ``whitelist``
and ``analyzed_df`` on request, and ``analyzed_df`` with the last candle after each close.
"""

import asyncio
import contextlib
import hmac
import re
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

import orjson
import structlog
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from worker.clients.aggregates import Aggregates
from worker.clients.bots.candles import SeriesMemory, column_names, point_of, timeframe_seconds
from worker.clients.bots.markets import Markets
from worker.errors import ConfigurationError, ConnectionFailedError
from worker.settings import FreqtradeSettings

log = structlog.get_logger(__name__)

_sleep = asyncio.sleep

_MONDAY: Final = 4 * 86_400
"""Exchanges' weeks begin on Mondays, and 1970 began on a Thursday."""
_MOST_CANDLES: Final = 1_500
"""What freqtrade itself sends and keeps at most."""
_IN_URL: Final = re.compile(r"[A-Za-z0-9._~-]+")
"""freqtrade writes its token into the address as it is: one with a space never connects."""
_REFUSED: Final = 1008
_SLOW: Final = 1013
_GOING: Final = 1012
_FAREWELL: Final = 5.0
"""Seconds in which a consumer that was cut off may take what is on its way, and the reason."""


class _Consumer:
    """One connected freqtrade."""

    def __init__(self, queue: int) -> None:
        self.topics: frozenset[str] = frozenset()
        self.waiting: asyncio.Queue[str] = asyncio.Queue(queue)
        self.code: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        """Set to end the connection: the code that it is closed with."""

    def give(self, message: str) -> None:
        """Queue a message; a consumer that takes none any more is cut off."""
        try:
            self.waiting.put_nowait(message)
        except asyncio.QueueFull:
            self.close(_SLOW)

    def close(self, code: int) -> None:
        """End the connection, whatever still waits."""
        if not self.code.done():
            self.code.set_result(code)


class FreqtradeProducer:
    """The ASGI application `app`, and `tell_each_candle` beside it.

    Args:
        aggregates: open.
        markets: which coin a pair is.
        settings: pairs, timeframe, metrics, token.

    Raises:
        ConfigurationError: no token, or an unknown pair, metric or timeframe.
    """

    def __init__(self, aggregates: Aggregates, markets: Markets, settings: FreqtradeSettings) -> None:
        token = settings.ws_token.get_secret_value() if settings.ws_token else ""
        if not _IN_URL.fullmatch(token):
            raise ConfigurationError(
                "freqtrade's websocket needs a token that can stand in an address: set "
                "bot.freqtrade.ws_token (KBERT_BOT__FREQTRADE__WS_TOKEN) to 16 or more letters, "
                "digits or -._~, and the consumer's ws_token to the same."
            )
        self._token = token.encode()
        self._aggregates = aggregates
        self._settings = settings
        self._length = timeframe_seconds(settings.timeframe)
        self._first = _MONDAY if settings.timeframe.endswith("w") else 0
        self._columns = [
            "date",
            *(f"kbert_{name.replace('.', '_')}" for name in column_names(settings.metrics)),
        ]
        self._coins = {
            pair: markets.market(pair, "ccxt-swap" if ":" in pair else "ccxt").symbol
            for pair in settings.pairs
        }
        self._memories = {
            symbol: SeriesMemory(settings.metrics, settings.window) for symbol in self._coins.values()
        }
        self._locks = {symbol: asyncio.Lock() for symbol in self._memories}
        self._consumers: set[_Consumer] = set()
        self.app = Starlette(
            routes=[
                Route("/api/v1/ping", _pong),
                WebSocketRoute("/api/v1/message/ws", self._connected),
            ]
        )

    async def tell_each_candle(self) -> None:
        """Send the new candle of every pair to all subscribers, right after each close, without end."""
        while True:
            now = time.time()
            await _sleep(self._length - (now - self._first) % self._length)
            for pair in self._coins:
                consumers = [c for c in self._consumers if "analyzed_df" in c.topics]
                if not consumers:
                    continue
                try:
                    message = await self._analysed(pair, 1)
                except ConnectionFailedError as error:
                    log.warning(
                        "freqtrade.candle_missed", pair=pair, error=str(error)
                    )  # it asks for it later
                    continue
                for consumer in consumers:
                    consumer.give(message)

    def close(self) -> None:
        """End every connection; consumers connect again by themselves."""
        for consumer in self._consumers:
            consumer.close(_GOING)

    async def _connected(self, socket: WebSocket) -> None:
        given = socket.query_params.get("token", "").encode()
        if not hmac.compare_digest(given, self._token):
            await socket.close(_REFUSED)
            return
        await socket.accept()
        consumer = _Consumer(self._settings.queue)
        self._consumers.add(consumer)
        reading = asyncio.create_task(self._read(socket, consumer))
        sending = asyncio.create_task(_send(socket, consumer))
        try:
            await asyncio.wait((reading, sending, consumer.code), return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._consumers.discard(consumer)
            reading.cancel()
            sending.cancel()
            await asyncio.wait((reading, sending))
        if consumer.code.done():
            with contextlib.suppress(TimeoutError, WebSocketDisconnect):
                async with asyncio.timeout(_FAREWELL):
                    await socket.close(consumer.code.result())
        for task in (reading, sending):
            if not task.cancelled():
                task.result()

    async def _read(self, socket: WebSocket, consumer: _Consumer) -> None:
        try:
            while True:
                text = await socket.receive_text()
                try:
                    await self._answer(orjson.loads(text), consumer)
                except (orjson.JSONDecodeError, AttributeError, TypeError, ValueError) as error:
                    log.warning("freqtrade.request_not_understood", error=str(error))
                except ConnectionFailedError as error:
                    log.warning("freqtrade.request_not_answered", error=str(error))
                    consumer.give(_message("exception", "Error processing request"))
        except WebSocketDisconnect:
            return

    async def _answer(self, request: Mapping[str, Any], consumer: _Consumer) -> None:
        data = request.get("data")
        match request.get("type"):
            case "subscribe":
                consumer.topics = frozenset(str(topic) for topic in data or ())
            case "whitelist":
                consumer.give(_message("whitelist", list(self._coins)))
            case "analyzed_df":
                wanted = data or {}
                limit = max(1, min(int(wanted.get("limit") or _MOST_CANDLES), _MOST_CANDLES))
                pairs = [wanted["pair"]] if wanted.get("pair") else list(self._coins)
                for pair in pairs:
                    if pair in self._coins:
                        consumer.give(await self._analysed(pair, limit))
            case other:
                log.warning("freqtrade.request_not_understood", type=other)

    async def _analysed(self, pair: str, candles: int) -> str:
        """The message with the last closed candles of a pair, nulls where nothing is known."""
        now = time.time()
        last = int(now) - (int(now) - self._first) % self._length
        opens = range(last - candles * self._length, last, self._length)
        rows = await self._rows(self._coins[pair], opens, now)
        frame = {"columns": self._columns, "index": list(range(candles)), "data": rows}
        data = {
            "key": [pair, self._settings.timeframe, self._settings.candle_type],
            # freqtrade sends a DataFrame as the text of pandas' `to_json(orient="split")`.
            "df": {"__type__": "dataframe", "__value__": orjson.dumps(frame).decode()},
            "la": datetime.now(UTC).isoformat(),
        }
        return _message("analyzed_df", data)

    async def _rows(self, symbol: str, opens: Sequence[int], now: float) -> list[list[Any]]:
        memory = self._memories[symbol]
        points = [point_of(at + self._length, self._settings.delay) for at in opens]
        async with self._locks[symbol]:
            for reading in memory.missing(points[0], points[-1], now):
                series = await self._aggregates.series(
                    symbol,
                    self._settings.metrics,
                    self._settings.window,
                    since=datetime.fromtimestamp(reading.since, UTC),
                    until=datetime.fromtimestamp(reading.until, UTC),
                    step=reading.step,
                )
                memory.add(reading, series)
            memory.forget_before(int(now) - _MOST_CANDLES * self._length)
        return [[at * 1_000, *memory.at(point)] for at, point in zip(opens, points, strict=True)]


async def _send(socket: WebSocket, consumer: _Consumer) -> None:
    with contextlib.suppress(WebSocketDisconnect):
        while True:
            await socket.send_text(await consumer.waiting.get())


async def _pong(request: Request) -> JSONResponse:
    return JSONResponse({"status": "pong"})


def _message(kind: str, data: Any) -> str:
    return orjson.dumps({"type": kind, "data": data}).decode()
