"""TCP proxies that lose answers, or are slow with them."""

import asyncio
from types import TracebackType
from typing import Self


class LosingProxy:
    """Forwards to 127.0.0.1:``port``; once armed, cuts the connection instead of the next answer.

    The request has reached the server by then, so what it asks for is done, and its
    caller cannot know.
    """

    def __init__(self, port: int, delay: float = 0.0) -> None:
        """``delay``: seconds that each piece of an answer waits."""
        self._target = port
        self._delay = delay
        self._marker: bytes | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self.lost = 0
        """Answers that were lost."""

    def lose_answer_to(self, marker: bytes) -> None:
        """Lose the answer to the next request that holds ``marker``."""
        self._marker = marker

    def lead_to(self, port: int) -> None:
        """Forward connections that are made from now on to another server."""
        self._target = port

    @property
    def port(self) -> int:
        """Where clients connect, on 127.0.0.1."""
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._server.close()
        for writer in list(self._writers):
            writer.close()
        await self._server.wait_closed()

    async def _serve(self, client: asyncio.StreamReader, back: asyncio.StreamWriter) -> None:
        server, forth = await asyncio.open_connection("127.0.0.1", self._target)
        doomed = asyncio.Event()
        self._writers |= {back, forth}
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._requests(client, forth, doomed))
                group.create_task(self._answers(server, back, doomed))
        except* ConnectionError:
            pass  # either side went: the other is closed below
        finally:
            for writer in (back, forth):
                writer.close()
                self._writers.discard(writer)

    async def _requests(
        self, client: asyncio.StreamReader, forth: asyncio.StreamWriter, doomed: asyncio.Event
    ) -> None:
        while data := await client.read(65_536):
            if self._marker is not None and self._marker in data:
                self._marker = None
                doomed.set()
            forth.write(data)
            await forth.drain()
        raise ConnectionResetError

    async def _answers(
        self, server: asyncio.StreamReader, back: asyncio.StreamWriter, doomed: asyncio.Event
    ) -> None:
        while data := await server.read(65_536):
            if doomed.is_set():
                self.lost += 1
                raise ConnectionResetError
            if self._delay:
                await asyncio.sleep(self._delay)
            back.write(data)
            await back.drain()
        raise ConnectionResetError
