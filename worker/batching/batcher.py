"""The work-conserving, token-budgeted, bounded batcher.

While the engine runs, the queue grows; when the engine is free, it takes what is
queued, first in first out, up to a token budget. A timer never makes an idle engine
wait. While the engine is busy a batch is handed out early only if it is full, so that
it can be collated ahead without splitting what would have fitted into one batch.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Batch(Generic[T]):
    """Items in the order in which they were put; ``tokens`` is the sum of their lengths."""

    items: list[T]
    tokens: int
    oldest_wait: float
    """Seconds that the first item waited in the queue."""


class BatcherClosedError(Exception):
    """``put`` after ``close``."""


class DynamicBatcher(Generic[T]):
    """One queue in front of one engine.

    Args:
        max_batch_tokens: budget of a batch; no batch is ever larger.
        max_queue_tokens: hard bound of the queue.
        max_queue_delay: seconds that an item may wait, by the measured service rate.
            The queue admits no more than that many seconds of work (but always one
            full batch), so the rest stays in Kafka and a drain is short.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        max_batch_tokens: int,
        max_queue_tokens: int,
        max_queue_delay: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if max_queue_tokens < max_batch_tokens:
            raise ValueError(
                f"batch.max_queue_tokens={max_queue_tokens} is below "
                f"batch.max_batch_tokens={max_batch_tokens}: raise the first or lower the second"
            )
        self.max_batch_tokens = max_batch_tokens
        self.max_queue_tokens = max_queue_tokens
        self.max_queue_delay = max_queue_delay
        self._clock = clock
        self._queue: deque[tuple[T, int, float]] = deque()
        self._queued_tokens = 0
        self._tokens_per_second: float | None = None
        self._closed = False
        self._wakeup = asyncio.Event()  # for the taker: something was put, closed, or the engine is free
        self._room = asyncio.Event()  # for the putter: something was taken
        self._putting = asyncio.Lock()  # waiters for room are served in turn

    @property
    def queued_tokens(self) -> int:
        """Tokens waiting."""
        return self._queued_tokens

    @property
    def queued_items(self) -> int:
        """Items waiting."""
        return len(self._queue)

    @property
    def capacity_tokens(self) -> int:
        """Tokens that the queue admits at the measured service rate."""
        if self._tokens_per_second is None:
            return min(self.max_queue_tokens, 2 * self.max_batch_tokens)
        by_delay = int(self._tokens_per_second * self.max_queue_delay)
        return min(self.max_queue_tokens, max(self.max_batch_tokens, by_delay))

    @property
    def room_tokens(self) -> int:
        """Tokens that would be admitted now."""
        return max(0, self.capacity_tokens - self._queued_tokens)

    def record_service(self, tokens: int, seconds: float) -> None:
        """Tell how long the engine took, so that the queue's bound follows its rate."""
        if seconds <= 0 or tokens <= 0:
            return
        rate = tokens / seconds
        previous = self._tokens_per_second
        self._tokens_per_second = rate if previous is None else 0.8 * previous + 0.2 * rate
        self._room.set()

    async def put(self, item: T, tokens: int) -> None:
        """Queue an item, waiting while the queue is full.

        Raises:
            ValueError: the item alone is over the batch budget.
            BatcherClosedError: the batcher was closed.
        """
        await self.put_all([(item, tokens)])

    async def put_all(self, items: Iterable[tuple[T, int]]) -> None:
        """Queue items with their tokens in order, waiting where the queue is full; the errors of ``put``."""
        async with self._putting:
            capacity, now = self.capacity_tokens, self._clock()  # neither moves while nothing is awaited
            for item, tokens in items:
                if not 0 < tokens <= self.max_batch_tokens:
                    raise ValueError(
                        f"an item of {tokens} tokens does not fit a batch of {self.max_batch_tokens}"
                    )
                while not self._closed and self._queue and self._queued_tokens + tokens > capacity:
                    self._room.clear()
                    await self._room.wait()
                    capacity, now = self.capacity_tokens, self._clock()
                if self._closed:
                    raise BatcherClosedError
                self._queue.append((item, tokens, now))
                self._queued_tokens += tokens
                self._wakeup.set()

    async def wait_for_room(self) -> None:
        """Wait until something would be admitted; a source that holds back waits here."""
        while not self._closed and not self.room_tokens:
            self._room.clear()
            await self._room.wait()

    async def next_batch(self, running: "asyncio.Future[Any] | None" = None) -> Batch[T] | None:
        """Wait for the next batch.

        Args:
            running: the engine's current work. The batch comes as soon as that is done
                and anything is queued, or at once when a full batch is queued.

        Returns:
            None when the batcher is closed and empty.
        """
        if running is not None:
            running.add_done_callback(self._wake)
        try:
            while True:
                if self._queue:
                    engine_free = running is None or running.done()
                    if engine_free or self._closed or self._queued_tokens >= self.max_batch_tokens:
                        return self._take()
                elif self._closed:
                    return None
                self._wakeup.clear()
                await self._wakeup.wait()
        finally:
            if running is not None:
                running.remove_done_callback(self._wake)

    def close(self) -> None:
        """Admit nothing more; what is queued is still handed out."""
        self._closed = True
        self._wakeup.set()
        self._room.set()

    def _wake(self, _done: object) -> None:
        self._wakeup.set()

    def _take(self) -> Batch[T]:
        oldest_wait = self._clock() - self._queue[0][2]
        items: list[T] = []
        total = 0
        while self._queue and total + self._queue[0][1] <= self.max_batch_tokens:
            item, tokens, _ = self._queue.popleft()
            items.append(item)
            total += tokens
        self._queued_tokens -= total
        self._room.set()
        return Batch(items, total, oldest_wait)
