"""The two common rules for making batches, to be compared with ours; neither looks at the engine."""

import asyncio
from typing import Any, Final, TypeVar

from worker.batching import Batch, DynamicBatcher

T = TypeVar("T")

TIMER: Final = 0.05
SIZE: Final = 32


class TimerBatcher(DynamicBatcher[T]):
    """All that came within ``timer`` seconds, which start with the first message."""

    size: float = float("inf")

    def __init__(
        self,
        max_batch_tokens: int,
        max_queue_tokens: int,
        max_queue_delay: float,
        *,
        timer: float = TIMER,
    ) -> None:
        super().__init__(max_batch_tokens, max_queue_tokens, max_queue_delay)
        self.timer = timer

    async def next_batch(self, running: "asyncio.Future[Any] | None" = None) -> Batch[T] | None:
        """Wait for the timer or the size; the engine's work plays no part."""
        while True:
            if not self._queue:
                if self._closed:
                    return None
            elif (left := self._left()) <= 0:
                return self._take()
            else:
                self._wakeup.clear()
                try:
                    async with asyncio.timeout(left):
                        await self._wakeup.wait()
                except TimeoutError:
                    return self._take()
                continue
            self._wakeup.clear()
            await self._wakeup.wait()

    def _left(self) -> float:
        full = len(self._queue) >= self.size or self._queued_tokens >= self.max_batch_tokens
        return 0.0 if full or self._closed else self.timer - (self._clock() - self._queue[0][2])


class FixedSizeBatcher(TimerBatcher[T]):
    """So many messages, or what came within the timer."""

    size = SIZE

    def _take(self) -> Batch[T]:
        rest = []
        while len(self._queue) > SIZE:
            rest.append(self._queue.pop())
        batch = super()._take()
        self._queue.extend(reversed(rest))
        return batch
