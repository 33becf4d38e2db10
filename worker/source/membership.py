"""Joining and leaving a consumer group, for both readers."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

import structlog
from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener
from aiokafka.errors import KafkaError

from worker.settings import KafkaSettings
from worker.source.reaching import why_unreachable

log = structlog.get_logger(__name__)

_STOP_SECONDS: Final = 3.0


async def join(
    consumer: AIOKafkaConsumer,
    topic: str,
    listener: ConsumerRebalanceListener,
    kafka: KafkaSettings,
    *,
    setting: str,
) -> None:
    """Subscribe and start.

    Args:
        setting: name of the setting that holds the topic, for the error.

    Raises:
        ConnectionFailedError: no broker answers, or it does not let us in.
        ConfigurationError: there is no such topic, or this user may not read it in this group.
    """
    consumer.subscribe([topic], listener=listener)
    try:
        await consumer.start()
    except BaseException as error:
        await stop(consumer)
        if isinstance(error, KafkaError):
            raise await why_unreachable(kafka, error, topic=topic, setting=setting) from error
        raise


async def leave(
    consumer: AIOKafkaConsumer, commit: Callable[[], Awaitable[None]], timeout: float, *, event: str
) -> None:
    """Commit and stop; a broker that is silent for ``timeout`` seconds is not waited for."""
    loop = asyncio.get_running_loop()
    end, late = loop.time() + timeout, False
    try:
        # Half of the time, so that the other half is left to leave the group.
        async with asyncio.timeout(timeout / 2):
            await commit()
    except TimeoutError:
        late = True
    finally:
        late |= not await stop(consumer, end - loop.time())
    if late:
        log.warning(event, seconds=timeout)


async def stop(consumer: AIOKafkaConsumer, seconds: float = _STOP_SECONDS) -> bool:
    """Stop a consumer; False where the time was too short, and the rest is given up.

    In a task of its own: while no broker answers, aiokafka lets the cancellation of its fetches out,
    which would end the caller.
    """
    stopping = asyncio.create_task(consumer.stop())
    try:
        _, late = await asyncio.wait({stopping}, timeout=seconds)
    finally:
        stopping.cancel()
    if not late and not stopping.cancelled():
        stopping.result()
    return not late
