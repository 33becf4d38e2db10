"""Answers that are kept for a moment, and computed once for all who ask at once."""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Hashable
from typing import Final, Generic, TypeVar

from worker.errors import KbertError

T = TypeVar("T")

_ENTRIES: Final = 1_024


class Fresh(Generic[T]):
    """A small cache.

    An answer younger than ``fresh`` seconds is given as it is; one younger than ``usable`` is
    given too, while the next is made; an older one is waited for.
    """

    def __init__(self, fresh: float, usable: float) -> None:
        self._fresh = fresh
        self._usable = usable
        self._known: OrderedDict[Hashable, tuple[float, T]] = OrderedDict()
        self._making: dict[Hashable, asyncio.Task[T]] = {}

    async def get(self, key: Hashable, make: Callable[[], Awaitable[T]]) -> T:
        """The answer; whatever ``make`` raises, where it had to be waited for."""
        known = self._known.get(key)
        if known is not None:
            age = time.monotonic() - known[0]
            if age <= self._fresh:
                return known[1]
            if age <= self._usable:
                self._start(key, make)
                return known[1]
        return await asyncio.shield(self._start(key, make))

    def _start(self, key: Hashable, make: Callable[[], Awaitable[T]]) -> "asyncio.Task[T]":
        task = self._making.get(key)
        if task is None:
            task = self._making[key] = asyncio.create_task(self._make(key, make))
            task.add_done_callback(_read)
        return task

    async def _make(self, key: Hashable, make: Callable[[], Awaitable[T]]) -> T:
        began = time.monotonic()
        try:
            value = await make()
        except KbertError:
            self._known.pop(key, None)  # better an error than an old answer that looks alive
            raise
        finally:
            del self._making[key]
        self._known[key] = (began, value)
        self._known.move_to_end(key)
        self._drop_old()
        return value

    def _drop_old(self) -> None:
        # Series are up to 1.1 MB each and differ with every `from`: by their number alone they were 1.2 GB.
        limit = time.monotonic() - self._usable
        while self._known and (len(self._known) > _ENTRIES or next(iter(self._known.values()))[0] < limit):
            self._known.popitem(last=False)


def _read(task: "asyncio.Task[T]") -> None:
    if not task.cancelled():
        task.exception()  # who waits has it; without a waiter asyncio would complain
