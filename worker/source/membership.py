"""Joining and leaving a consumer group, for both readers."""

import asyncio
from collections.abc import Awaitable, Callable

import structlog
from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener
from aiokafka.errors import KafkaError

from worker.settings import KafkaSettings
from worker.source.reaching import why_unreachable

log = structlog.get_logger(__name__)


async def join(
    consumer: AIOKafkaConsumer, topic: str, listener: ConsumerRebalanceListener, kafka: KafkaSettings
) -> None:
    """Subscribe and start.

    Raises:
        ConnectionFailedError: no broker answers, or it refuses us.
    """
    consumer.subscribe([topic], listener=listener)
    try:
        await consumer.start()
    except KafkaError as error:
        await consumer.stop()
        raise await why_unreachable(kafka, error) from error


async def leave(
    consumer: AIOKafkaConsumer, commit: Callable[[], Awaitable[None]], timeout: float, *, event: str
) -> None:
    """Commit and stop; a broker that is silent for ``timeout`` seconds is not waited for."""
    try:
        async with asyncio.timeout(timeout):
            try:
                await commit()
            finally:
                await consumer.stop()
    except TimeoutError:
        log.warning(event, seconds=timeout)
