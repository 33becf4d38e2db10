"""Certificates of the moment, and a proxy that ends TLS before a server that has none."""

import asyncio
import ssl
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import trustme

from worker.embedded import EmbeddedKafka, free_port
from worker.embedded.server import wait_for_answer


@dataclass(frozen=True)
class Certificates:
    """PEM files of an authority, and what it has signed for a client."""

    authority: trustme.CA
    cafile: Path
    certfile: Path
    keyfile: Path

    @classmethod
    def make(cls, directory: Path) -> Self:
        directory.mkdir(parents=True, exist_ok=True)
        authority = trustme.CA()
        cafile, certfile, keyfile = (directory / name for name in ("ca.pem", "client.pem", "client.key"))
        authority.cert_pem.write_to_path(str(cafile))
        client = authority.issue_cert("client@example.org")
        client.private_key_pem.write_to_path(str(keyfile))
        client.cert_chain_pems[0].write_to_path(str(certfile))
        return cls(authority, cafile, certfile, keyfile)

    def of_server(self, name: str = "localhost", *, ask_client: bool = False) -> ssl.SSLContext:
        """Context of a server of that name; ``ask_client``: only clients with a certificate of ours."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.authority.issue_cert(name).configure_cert(context)
        if ask_client:
            context.verify_mode = ssl.CERT_REQUIRED
            self.authority.configure_trust(context)
        return context


class TlsProxy:
    """TLS on ``localhost``:``port``, plain to 127.0.0.1:``target``."""

    def __init__(self, target: int, context: ssl.SSLContext, port: int | None = None) -> None:
        self._target = target
        self._context = context
        self.port = port or free_port()
        self._writers: set[asyncio.StreamWriter] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "localhost", self.port, ssl=self._context)
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
        self._writers |= {back, forth}
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(_pass_on(client, forth))
                group.create_task(_pass_on(server, back))
        except* OSError:
            pass  # either side went: the other is closed below
        finally:
            for writer in (back, forth):
                writer.close()
                self._writers.discard(writer)


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65_536):
        writer.write(data)
        await writer.drain()
    raise ConnectionResetError


class KafkaBehindTls(EmbeddedKafka):
    """An embedded broker that tells its clients to come to ``localhost``:``advertised``."""

    def __init__(self, advertised: int) -> None:
        super().__init__()
        self._advertised = advertised

    def _command(self, port: int, directory: Path) -> list[str]:
        command = super()._command(port, directory)
        command[command.index("--advertised-listener-url") + 1] = f"tcp://localhost:{self._advertised}"
        return command

    async def _wait_until_ready(self, port: int, within: float) -> None:
        await wait_for_answer(port, b"", (), within)
