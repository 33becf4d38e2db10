"""Windows out of Redis: one pipelined call for all windows of one coin."""

import asyncio
import struct
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from datetime import UTC, datetime
from itertools import chain
from typing import Any, Final

from schemas.aggregates import BoardRow, CoinAggregates, Series, WindowMetrics
from schemas.windows import MARKET, WINDOWS, Window
from worker.aggregates.buckets import HOURS_A_DAY, MINUTES_AN_HOUR, ROW
from worker.aggregates.contribution import LATE, MESSAGES
from worker.aggregates.keys import Keys
from worker.aggregates.series import SeriesPlan, check_moment, check_window, spark, spark_minutes
from worker.aggregates.store import Command, RedisStore
from worker.aggregates.windows import CoinHistory, Row, freshness, metrics, past_hours, past_week, span, total

_COINS_A_CALL: Final = 64
_COINS_A_TURN: Final = 8
"""Coins of a board between two turns of the event loop: 280 coins in one go held it for 120 ms."""

_MINUTE_MS: Final = 60_000
_MESSAGES_OF_A_ROW: Final = struct.Struct(f"<I{ROW.size - 4}x")
assert MESSAGES == 0  # noqa: S101 - the struct above takes the first column


class AggregateReader:
    """Reads what `Aggregator` wrote under the same prefix; ``clock`` tells seconds since 1970."""

    def __init__(self, store: RedisStore, keys: Keys, clock: Callable[[], float] = time.time) -> None:
        self._store = store
        self._keys = keys
        self._clock = clock

    async def coins(self) -> list[str]:
        """Symbols that ever had a signal, sorted; MARKET is not among them.

        Raises:
            ConnectionFailedError: Redis does not answer.
        """
        (members,) = await self._store.once([("SMEMBERS", self._keys.coins)])
        return sorted({member.decode() for member in members} - {MARKET})

    async def coin(self, symbol: str, at: datetime | None = None) -> CoinAggregates:
        """Every window of one coin (or of MARKET).

        Args:
            symbol: ticker; one without signals gives zeros and nulls.
            at: when the windows end, now by default. Minute buckets live for 25 h, so
                24h is whole for moments up to an hour back.

        Raises:
            ConnectionFailedError: Redis does not answer.
            SeriesError: ``at`` is further back, or ahead of now.
        """
        at_ms = self._milliseconds(at, WINDOWS)
        minute = at_ms // _MINUTE_MS
        question = _Question(self._keys, WINDOWS, minute)
        answers = await self._store.once([*question.about(symbol), question.buckets_of(MARKET)])
        *about, market = answers
        history = question.history(about)
        past = past_week(history, minute)
        market_messages = question.messages(market)
        return CoinAggregates(
            symbol=symbol,
            as_of=datetime.fromtimestamp(at_ms / 1_000, UTC),
            freshness=freshness(history, at_ms),
            windows={
                window: metrics(
                    window,
                    total(history, part),
                    authors=history.authors[window],
                    past=past,
                    market_messages=market_messages[window],
                )
                for window, part in question.spans.items()
            },
        )

    async def window(self, window: Window, at: datetime | None = None) -> dict[str, WindowMetrics]:
        """One window of MARKET and of every coin that ever had a signal, by symbol.

        Raises:
            ConnectionFailedError: Redis does not answer.
            SeriesError: there is no such window, or ``at`` is ahead of now, or further back than minutes are
                kept for this window: 1 h for 24h, 21 h for 4h, 24 h for the others.
        """
        minute = self._milliseconds(at, [window]) // _MINUTE_MS
        question = _Question(self._keys, [window], minute)
        symbols = [MARKET, *await self.coins()]
        histories: list[CoinHistory] = []
        for start in range(0, len(symbols), _COINS_A_CALL):
            group = [question.about(symbol) for symbol in symbols[start : start + _COINS_A_CALL]]
            answers = await self._store.once([command for commands in group for command in commands])
            size = len(group[0])
            histories += [question.history(answers[n : n + size]) for n in range(0, len(answers), size)]
        totals = [total(history, question.spans[window]) for history in histories]
        return {
            symbol: metrics(
                window,
                summed,
                authors=history.authors[window],
                past=past_week(history, minute),
                market_messages=totals[0][MESSAGES],
            )
            for symbol, history, summed in zip(symbols, histories, totals, strict=True)
        }

    async def board(self, window: Window, at: datetime | None = None) -> list[BoardRow]:
        """One window of MARKET and of every coin, with a sparkline each; gives way to other work.

        Raises:
            ConnectionFailedError: Redis does not answer.
            SeriesError: as of `window`.
        """
        at_ms = self._milliseconds(at, [window])
        minute = at_ms // _MINUTE_MS
        question = _Question(self._keys, [window], minute, spark_minutes(window, minute))
        symbols = [MARKET, *await self.coins()]
        rows: list[BoardRow] = []
        market_messages = 0
        for start in range(0, len(symbols), _COINS_A_TURN):
            group = symbols[start : start + _COINS_A_TURN]
            answers = await self._store.once([c for symbol in group for c in question.about(symbol)])
            size = len(answers) // len(group)
            for n, symbol in enumerate(group):
                history = question.history(answers[n * size : (n + 1) * size])
                summed = total(history, question.spans[window])
                if symbol == MARKET:
                    market_messages = summed[MESSAGES]
                rows.append(
                    BoardRow(
                        symbol=symbol,
                        freshness=freshness(history, at_ms),
                        metrics=metrics(
                            window,
                            summed,
                            authors=history.authors[window],
                            past=past_week(history, minute),
                            market_messages=market_messages,
                        ),
                        spark=spark(window, history, minute),
                    )
                )
            await asyncio.sleep(0)
        return rows

    async def series(self, symbol: str, metric_names: Sequence[str], plan: SeriesPlan) -> Series:
        """Windows of one coin over time.

        Raises:
            ConnectionFailedError: Redis does not answer.
        """
        keys = self._keys
        size = MINUTES_AN_HOUR if plan.by_minute else HOURS_A_DAY
        name = keys.minutes if plan.by_minute else keys.hours
        parts = range(plan.buckets.start // size, -(-plan.buckets.stop // size))
        values: Sequence[bytes | None] = ()
        if parts:  # no step falls into a range that is shorter than one
            (values,) = await self._store.once([_command("MGET", [name(symbol, part) for part in parts])])
        return plan.read(symbol, metric_names, _rows(parts, values, size))

    def _milliseconds(self, at: datetime | None, windows: Collection[Window]) -> int:
        """The moment, at which the buckets can tell these windows."""
        for window in windows:
            check_window(window)
        now = self._clock()
        if at is None:
            return int(now * 1_000)
        moment = (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()
        check_moment(windows, moment, now)
        return int(moment * 1_000)


class _Question:
    """Which keys some windows need, and how their answers are read."""

    def __init__(
        self, keys: Keys, windows: Collection[Window], minute: int, also_minutes: range = range(0)
    ) -> None:
        self._keys = keys
        self.spans = {window: span(window, minute) for window in windows}
        parts = self.spans.values()
        minutes = chain(also_minutes, *(part.every_minute() for part in parts))
        self._hours = sorted({n // MINUTES_AN_HOUR for n in minutes})
        hours: set[int] = set(past_hours(minute)).union(*(part.hours for part in parts))
        self._days = sorted({hour // HOURS_A_DAY for hour in hours})

    def about(self, symbol: str) -> list[Command]:
        """Everything about one coin."""
        keys = self._keys
        counts = [
            _command(
                "PFCOUNT",
                [keys.minute_authors(symbol, minute) for minute in part.every_minute()],
                [keys.hour_authors(symbol, hour) for hour in part.hours],
            )
            for part in self.spans.values()
        ]
        return [("HMGET", keys.state(symbol), "first", "newest"), self.buckets_of(symbol), *counts]

    def buckets_of(self, symbol: str) -> Command:
        """Its buckets only."""
        keys = self._keys
        return _command(
            "MGET",
            [keys.minutes(symbol, hour) for hour in self._hours],
            [keys.hours(symbol, day) for day in self._days],
        )

    def history(self, answers: Sequence[Any]) -> CoinHistory:
        """From the answers to `about`."""
        (first, newest), buckets, *counts = answers
        split = len(self._hours)
        return CoinHistory(
            minutes=_rows(self._hours, buckets[:split], MINUTES_AN_HOUR),
            hours=_rows(self._days, buckets[split:], HOURS_A_DAY),
            authors=dict(zip(self.spans, counts, strict=True)),
            first=None if first is None else int(first),
            newest=None if newest is None else int(newest),
        )

    def messages(self, buckets: Sequence[bytes | None]) -> dict[Window, int]:
        """Messages of each window, from the answer to `buckets_of`: a tenth of the time of whole rows."""
        split = len(self._hours)
        minutes = _messages(self._hours, buckets[:split], MINUTES_AN_HOUR)
        hours = _messages(self._days, buckets[split:], HOURS_A_DAY)
        return {
            window: sum(minutes.get(n, 0) for n in part.every_minute())
            + sum(hours.get(n, 0) for n in part.hours)
            for window, part in self.spans.items()
        }


def _command(name: str, *keys: Iterable[str]) -> Command:
    """Keys as bytes: redis-py asks four times for the type of a str, and a read has 500 keys."""
    return (name, *(key.encode() for group in keys for key in group))


def _rows(numbers: Iterable[int], values: Sequence[bytes | None], parts: int) -> dict[int, Row]:
    """Buckets with content by their own number, from the strings of ``parts`` buckets each."""
    return {
        number * parts + place: row
        for number, value in zip(numbers, values, strict=True)
        if value is not None
        for place, row in enumerate(ROW.iter_unpack(value))
        if row[MESSAGES] or row[LATE]
    }


def _messages(numbers: Iterable[int], values: Sequence[bytes | None], parts: int) -> dict[int, int]:
    return {
        number * parts + place: count
        for number, value in zip(numbers, values, strict=True)
        if value is not None
        for place, (count,) in enumerate(_MESSAGES_OF_A_ROW.iter_unpack(value))
    }
