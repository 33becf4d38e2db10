"""What the embedded servers share: a port, a directory, a child, and readiness."""

import asyncio
import signal
import socket
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import Self

from worker.embedded.child import ChildProcess
from worker.errors import KbertError

HOST = "127.0.0.1"
_PORT_ATTEMPTS = 3


class EmbeddedServerError(KbertError):
    """An embedded server did not start; the message holds the end of its log."""


class EmbeddedServer(ABC):
    """A server as a child process on the loopback interface.

    ``async with`` starts and stops it; ``start`` and ``stop`` do so by hand. After
    ``kill`` the server can be started again and keeps its port.
    """

    name: str

    def __init__(
        self, port: int | None = None, directory: Path | None = None, start_timeout: float = 15.0
    ) -> None:
        """Prepare; nothing runs before ``start``.

        Args:
            port: TCP port; a free one is chosen where absent.
            directory: for data and log, made if missing and left in place;
                a temporary one, removed on ``stop``, where absent.
            start_timeout: seconds until the server has to answer.
        """
        self._port = port
        self._directory = directory
        self._temporary: TemporaryDirectory[str] | None = None
        self._start_timeout = start_timeout
        self._child: ChildProcess | None = None

    @abstractmethod
    def _command(self, port: int, directory: Path) -> list[str]:
        """The command line, its first item an absolute path."""

    @abstractmethod
    async def _wait_until_ready(self, port: int, within: float) -> None:
        """Return as soon as the server answers its protocol; TimeoutError after ``within`` seconds."""

    def _environment(self) -> Mapping[str, str] | None:
        """Environment of the child; None for ours."""
        return None

    @property
    def port(self) -> int:
        """TCP port on 127.0.0.1.

        Raises:
            EmbeddedServerError: no port was given and the server was never started.
        """
        if self._port is None:
            raise EmbeddedServerError(f"The embedded {self.name} has no port before it is started.")
        return self._port

    @property
    def pid(self) -> int:
        """Process id of the server itself, not of a wrapper."""
        return self._running_child().pid

    @property
    def running(self) -> bool:
        """Whether the process is there; a frozen one is."""
        return self._child is not None and self._child.running

    @property
    def data_directory(self) -> Path:
        """Where data and log lie; made on the first call."""
        if self._directory is not None:
            self._directory.mkdir(parents=True, exist_ok=True)
            return self._directory.resolve()
        if self._temporary is None:
            self._temporary = TemporaryDirectory(prefix="kbert-", ignore_cleanup_errors=True)
        return Path(self._temporary.name)

    async def start(self) -> None:
        """Start and return as soon as it answers.

        Raises:
            ConfigurationError: the package that carries the server is missing.
            EmbeddedServerError: it ended, or did not answer in time.
        """
        if self.running:
            return
        chosen = self._port
        if chosen is not None and not port_is_free(chosen):
            # Else the stranger that holds the port would answer the readiness probe in our server's place.
            raise EmbeddedServerError(
                f"The embedded {self.name} cannot use port {chosen}: another process listens on it."
            )
        for attempt in range(1, _PORT_ATTEMPTS + 1):
            port = chosen or free_port()
            try:
                await self._start_on(port)
            except EmbeddedServerError:
                # Another process may have taken the free port before the child bound it.
                if chosen is not None or attempt == _PORT_ATTEMPTS:
                    raise
            else:
                self._port = port
                return

    async def _start_on(self, port: int) -> None:
        directory = self.data_directory
        command = self._command(port, directory)
        try:
            child = ChildProcess(command, directory / f"{self.name}.log", self._environment())
        except OSError as error:
            raise EmbeddedServerError(f"{command[0]} cannot be executed: {error}") from error
        ready = asyncio.ensure_future(self._wait_until_ready(port, self._start_timeout))
        try:
            while not ready.done():
                self._refuse_if_ended(child, port)
                await asyncio.wait([ready], timeout=0.05)
            await ready
        except TimeoutError as error:
            child.kill()
            raise EmbeddedServerError(
                f"The embedded {self.name} did not answer on port {port} within "
                f"{self._start_timeout:g} s: {error}. Its last words:\n{child.log_tail()}"
            ) from error
        except BaseException:
            ready.cancel()
            child.kill()
            raise
        self._child = child

    def _refuse_if_ended(self, child: ChildProcess, port: int) -> None:
        if not child.running:
            raise EmbeddedServerError(
                f"The embedded {self.name} ended with status {child.exit_code} while starting "
                f"on port {port}. Its last words:\n{child.log_tail()}"
            )

    async def stop(self) -> None:
        """End the process and remove a temporary directory; the port stays for another start."""
        if self._child is not None:
            await self._child.stop()
            self._child = None
        if self._temporary is not None:
            self._temporary.cleanup()
            self._temporary = None

    def freeze(self) -> None:
        """SIGSTOP: connections stay open and nothing answers, as in a network split."""
        self._running_child().signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """SIGCONT: go on after ``freeze``."""
        self._running_child().signal(signal.SIGCONT)

    def kill(self) -> None:
        """SIGKILL, as a crash; returns when the process is gone."""
        self._running_child().kill()

    def log_tail(self, lines: int = 10) -> str:
        """The last lines of the server's own log."""
        return self._running_child().log_tail(lines)

    def _running_child(self) -> ChildProcess:
        if self._child is None:
            raise EmbeddedServerError(f"The embedded {self.name} is not started.")
        return self._child

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.stop()


def free_port() -> int:
    """A TCP port on 127.0.0.1 that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
        return port


def port_is_free(port: int) -> bool:
    """Whether a server could bind ``port`` on 127.0.0.1 now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
        return True


async def wait_for_answer(port: int, request: bytes, expected: tuple[bytes, ...], within: float) -> None:
    """Send ``request`` on fresh connections until an answer starts with one of ``expected``.

    Nothing is read where nothing is expected: an accepted connection is enough.

    Raises:
        TimeoutError: no such answer within that many seconds.
    """
    deadline = time.monotonic() + within
    last = "no connection"
    while time.monotonic() < deadline:
        try:
            async with asyncio.timeout(1.0):
                reader, writer = await asyncio.open_connection(HOST, port)
                try:
                    writer.write(request)
                    answer = await reader.read(256) if expected else b""
                finally:
                    writer.close()
            if not expected or answer.startswith(expected):
                return
            last = answer.decode("utf-8", errors="replace").strip()
        except (OSError, TimeoutError) as error:
            last = str(error) or type(error).__name__
        await asyncio.sleep(0.01)
    raise TimeoutError(f"last answer: {last}")
