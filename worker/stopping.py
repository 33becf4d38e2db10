"""Waiting that ends early when the process shall stop."""

import asyncio


async def stopped_within(stop: asyncio.Event, seconds: float) -> bool:
    """Wait that long, or shorter when ``stop`` is set."""
    try:
        async with asyncio.timeout(seconds):
            await stop.wait()
    except TimeoutError:
        return False
    return True
