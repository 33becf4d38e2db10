"""A server that takes connections and never answers."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


@asynccontextmanager
async def silent_server() -> AsyncIterator[tuple[str, asyncio.Event]]:
    """Its address, ``host:port``, and whether anyone has come."""
    asked = asyncio.Event()

    async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.set()
        await reader.read()  # until it hangs up
        writer.close()

    async with await asyncio.start_server(take, "127.0.0.1", 0) as server:
        yield "{}:{}".format(*server.sockets[0].getsockname()), asked
