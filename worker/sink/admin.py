"""Asking a broker whether it is there."""

import asyncio
import time
from typing import Any

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError


async def wait_until_ready(
    bootstrap_servers: str,
    timeout: float,
    **client_options: Any,
) -> None:
    """Return as soon as the broker answers a metadata request.

    An open port is not enough: brokers accept connections before they serve them.

    Args:
        bootstrap_servers: ``host:port``, several joined by commas.
        timeout: seconds.
        client_options: further keyword arguments of every aiokafka client, such as security settings.

    Raises:
        TimeoutError: no answer within ``timeout`` seconds; the message holds the last error.
    """
    deadline = time.monotonic() + timeout
    last = "no attempt"
    while (left := deadline - time.monotonic()) > 0:
        admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap_servers, **client_options)
        try:
            async with asyncio.timeout(left):
                await admin.start()
                await admin.list_topics()
                return
        except (KafkaError, OSError, TimeoutError) as error:
            last = str(error) or type(error).__name__
        finally:
            await admin.close()
        await asyncio.sleep(min(0.05, max(0.0, deadline - time.monotonic())))
    raise TimeoutError(f"Kafka at {bootstrap_servers} did not answer within {timeout:g} s: {last}")
