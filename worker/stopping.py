"""Waiting that ends early when the process shall stop."""

import asyncio
import os
import signal
import sys
import threading
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from typing import NoReturn, TypeVar

R = TypeVar("R")


async def stopped_within(stop: asyncio.Event, seconds: float) -> bool:
    """Wait that long, or shorter when ``stop`` is set."""
    try:
        async with asyncio.timeout(seconds):
            await stop.wait()
    except TimeoutError:
        return False
    return True


async def unless_stopped(stop: asyncio.Event, work: Awaitable[R]) -> R | None:
    """What the work gives; None where ``stop`` is set before: then it is cancelled, wherever it waits."""
    limit = asyncio.timeout(None)

    async def watch() -> None:
        await stop.wait()
        limit.reschedule(asyncio.get_running_loop().time())

    watching = asyncio.create_task(watch())
    try:
        async with limit:
            return await work
    except TimeoutError:
        if not limit.expired():
            raise
        return None
    finally:
        watching.cancel()


async def in_own_thread(work: Callable[[], R], name: str, stop: asyncio.Event) -> R:
    """As ``asyncio.to_thread``, but where the call is cancelled, its thread does not hold the process up."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[R] = loop.create_future()

    def settle(set_it: Callable[[], None]) -> None:
        if not done.done():
            set_it()

    def run() -> None:
        settled: Callable[[], None]
        try:
            settled = partial(done.set_result, work())
        except BaseException as error:  # noqa: BLE001 - it belongs to the caller
            settled = partial(done.set_exception, error)
        with suppress(RuntimeError):  # a loop that has closed has no caller left to tell
            loop.call_soon_threadsafe(settle, settled)

    thread = threading.Thread(target=run, name=name, daemon=True)
    thread.start()
    try:
        return await done
    except asyncio.CancelledError:
        # The interpreter waits for the threads that a download has started for itself, and a daemon in native
        # code takes it down with SIGABRT. Only this hook runs before both.
        status = 0 if stop.is_set() else 1
        threading._register_atexit(partial(_leave, thread, status))  # type: ignore[attr-defined]
        raise


def end_by(number: signal.Signals) -> NoReturn:
    """End the process at once, as the signal does where nobody handles it."""
    signal.signal(number, signal.SIG_DFL)
    signal.raise_signal(number)
    # The first process of a container is still here: the kernel takes no default action against it.
    _exit(128 + number)


def _leave(thread: threading.Thread, status: int) -> None:
    if thread.is_alive():
        _exit(status)


def _exit(status: int) -> NoReturn:
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    finally:  # nothing takes the last words any more
        os._exit(status)
