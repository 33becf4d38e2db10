"""From the signal topic to something that takes one signal after another, without losing any."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Final

import structlog
from aiokafka import TopicPartition

from schemas.signals import CryptoSignal
from worker.clients.signals import SignalStream

log = structlog.get_logger(__name__)

_COMMIT_SECONDS: Final = 1.0

_Waiting = tuple[CryptoSignal | None, Mapping[TopicPartition, int]]
"""A signal, or none where only others passed by, and the places up to there."""


async def relay(
    stream: SignalStream,
    deliver: Callable[[CryptoSignal], Awaitable[object]],
    stop: asyncio.Event,
    *,
    queue: int,
    drain_timeout: float,
) -> None:
    """Hand every signal to ``deliver``, in order, until ``stop`` is set or ``deliver`` raises.

    A place is committed only after everything before it was delivered, and within a second or two
    also where the stream's filters let nothing through. When ``queue`` signals wait, the topic is
    not read on. What is not delivered within ``drain_timeout`` seconds after ``stop`` comes again
    to the next reader of the group.

    Args:
        stream: open, of a group, with ``auto_commit=False``.
        deliver: keeps a signal until it has a place to stay; a repeat may come after a crash.
        stop: ends it.
        queue: signals that may wait here.
        drain_timeout: seconds for what waits at the end.
    """
    waiting: asyncio.Queue[_Waiting] = asyncio.Queue(queue)

    async def send() -> None:
        committed = 0.0
        while True:
            signal, places = await waiting.get()
            if signal is not None:
                await deliver(signal)
            if waiting.empty() or time.monotonic() - committed >= _COMMIT_SECONDS:
                await stream.commit(places)
                committed = time.monotonic()
            waiting.task_done()

    reading, sending = asyncio.create_task(_read(stream, waiting)), asyncio.create_task(send())
    stopping = asyncio.create_task(stop.wait())
    draining: asyncio.Task[None] | None = None
    try:
        await asyncio.wait((reading, sending, stopping), return_when=asyncio.FIRST_COMPLETED)
        reading.cancel()
        await asyncio.wait((reading,))
        draining = asyncio.create_task(waiting.join())
        await asyncio.wait((sending, draining), timeout=drain_timeout, return_when=asyncio.FIRST_COMPLETED)
        if not waiting.empty():
            log.warning("relay.left_for_next_time", signals=waiting.qsize())
    finally:
        tasks = [task for task in (reading, sending, stopping, draining) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
    for task in (reading, sending):
        if not task.cancelled():
            task.result()


async def _read(stream: SignalStream, waiting: asyncio.Queue[_Waiting]) -> None:
    """Queue every signal with the places behind it, and now and then the places alone."""
    known: Mapping[TopicPartition, int] = {}
    signals = aiter(stream)
    coming = asyncio.ensure_future(anext(signals, None))
    try:
        while True:
            await asyncio.wait((coming,), timeout=_COMMIT_SECONDS)
            if coming.done():
                signal, places = coming.result(), await stream.places()
                if signal is None:
                    return
                await waiting.put((signal, places))
                coming = asyncio.ensure_future(anext(signals, None))
            else:
                places = await stream.places()
                if coming.done() or places == known:  # one that came just now may lie before these places
                    continue
                await waiting.put((None, places))
            known = places
    finally:
        coming.cancel()
        await asyncio.wait((coming,))
