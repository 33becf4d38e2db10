"""One stream in, many readers out: a bounded queue each, so that a slow one harms nobody."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Collection, Coroutine
from dataclasses import dataclass
from enum import Enum
from functools import cached_property
from typing import Any, Literal

from schemas.signals import CryptoSignal
from worker.errors import KbertError
from worker.serve import metrics
from worker.signal_filter import SignalFilter

EventKind = Literal["signal", "aggregates"]
StreamKind = Literal["sse", "websocket"]


class Ending(Enum):
    """Why a stream ends: WebSocket close code, name and sentence."""

    SLOW = (1013, "slow_reader", "read faster or filter more: events waited for you beyond the limit")
    STOPPING = (1012, "restarting", "the server stops: connect again")

    @property
    def code(self) -> int:
        """WebSocket close code."""
        return self.value[0]

    @property
    def reason(self) -> str:
        """Close reason, below the 123 bytes of a close frame."""
        return f"{self.value[1]}: {self.value[2]}"


class TooManyStreamsError(KbertError):
    """As many streams are open as the settings allow."""


@dataclass(frozen=True)
class Event:
    """What is sent; encoded once for all readers of a kind."""

    kind: EventKind
    body: bytes
    """JSON on one line."""
    signal: CryptoSignal | None = None
    symbols: Collection[str] = ()

    @cached_property
    def as_sse(self) -> bytes:
        """As a server-sent event."""
        return b"event: " + self.kind.encode() + b"\ndata: " + self.body + b"\n\n"

    @cached_property
    def as_text(self) -> str:
        """As a WebSocket message."""
        return f'{{"event":"{self.kind}","data":{self.body.decode()}}}'


class Subscription:
    """One reader's queue."""

    def __init__(self, wanted: SignalFilter, kinds: Collection[EventKind], limit: int) -> None:
        self._wanted = wanted
        self._kinds = frozenset(kinds)
        self._limit = limit
        self._events: deque[Event] = deque()
        self._filled = asyncio.Event()
        self._ended = asyncio.Event()
        self.ending: Ending | None = None

    def offer(self, event: Event) -> None:
        """Queue the event where it is wanted; a full queue ends the subscription."""
        if self.ending is not None or event.kind not in self._kinds or not self._wants(event):
            return
        if len(self._events) >= self._limit:
            self.end(Ending.SLOW)
            return
        self._events.append(event)
        self._filled.set()

    def end(self, ending: Ending) -> None:
        """No more events; what waits is thrown away."""
        if self.ending is None:
            self.ending = ending
            self._events.clear()
            self._ended.set()

    async def take(self) -> list[Event]:
        """All that waits, at least one."""
        while not self._events:
            self._filled.clear()
            await self._filled.wait()
        events = list(self._events)
        self._events.clear()
        return events

    async def ended(self) -> Ending:
        """Wait for the end."""
        await self._ended.wait()
        if self.ending is None:
            raise RuntimeError("ended without a reason")
        return self.ending

    def _wants(self, event: Event) -> bool:
        if event.signal is not None:
            return self._wanted.passes(event.signal)
        return self._wanted.names(event.symbols)


class Hub:
    """Hands every event to every subscription that wants it, without waiting for any."""

    def __init__(self, *, queue: int, streams: int) -> None:
        """Prepare.

        Args:
            queue: events that may wait for one reader.
            streams: readers at the same time.
        """
        self._queue = queue
        self._streams = streams
        self._subscriptions: set[Subscription] = set()
        self._closed = False

    def __len__(self) -> int:
        return len(self._subscriptions)

    def subscribe(self, wanted: SignalFilter, kinds: Collection[EventKind]) -> Subscription:
        """A new reader; give it back with `leave`.

        Raises:
            TooManyStreamsError: no more readers are allowed.
        """
        if len(self._subscriptions) >= self._streams:
            raise TooManyStreamsError(
                f"{self._streams} streams are open, as many as serve.max_streams allows: try again later."
            )
        subscription = Subscription(wanted, kinds, self._queue)
        if self._closed:
            subscription.end(Ending.STOPPING)
        self._subscriptions.add(subscription)
        return subscription

    def leave(self, subscription: Subscription) -> None:
        """The reader has gone."""
        self._subscriptions.discard(subscription)

    def publish(self, event: Event) -> None:
        """To all who want it."""
        for subscription in self._subscriptions:
            subscription.offer(event)

    def close(self) -> None:
        """End every subscription, and those to come."""
        self._closed = True
        for subscription in self._subscriptions:
            subscription.end(Ending.STOPPING)


async def pump(
    subscription: Subscription,
    *,
    kind: StreamKind,
    write: Callable[[list[Event]], Awaitable[None]],
    gone: Callable[[], Coroutine[Any, Any, None]],
) -> Ending | None:
    """Write events until the subscription ends, or until the reader has gone (then None).

    A write that waits for a slow reader is cancelled when the subscription ends.
    """

    async def send() -> None:
        while True:
            events = await subscription.take()
            await write(events)
            metrics.STREAM_EVENTS.labels(kind).inc(len(events))

    tasks: list[asyncio.Task[Any]] = [
        asyncio.create_task(send()),
        asyncio.create_task(gone()),
        asyncio.create_task(subscription.ended()),
    ]
    metrics.STREAMS.labels(kind).inc()
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        metrics.STREAMS.labels(kind).dec()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    if subscription.ending is not None:
        metrics.STREAMS_CUT.labels(kind, subscription.ending.name.lower()).inc()
    return subscription.ending
