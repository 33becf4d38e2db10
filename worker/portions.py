"""Long work on the event loop, cut so that other tasks have their turn.

Python code holds the interpreter's lock, so a thread takes nothing off the loop: each waits for the other,
and the messages move between the caches of two cores. With decoding, collating and building signals in
two pool threads, a message took 18 % more CPU around a null engine.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from time import monotonic
from typing import Final

_ITEMS: Final = 16
_BYTES: Final = 65_536
_SECONDS: Final = 0.002


async def portions(sizes: Sequence[int]) -> AsyncIterator[slice]:
    """Slices that cover items of these sizes in bytes, in order; the loop goes round every 2 ms of work.

    A slice has at most 16 items, and no more than 64 KiB unless it is one item.
    """
    start = held = 0
    turn = monotonic() + _SECONDS
    for end, size in enumerate(sizes):
        if end > start and (end - start == _ITEMS or held + size > _BYTES):
            yield slice(start, end)
            start, held = end, 0
            if monotonic() >= turn:
                await asyncio.sleep(0)
                turn = monotonic() + _SECONDS
        held += size
    if start < len(sizes):
        yield slice(start, len(sizes))
