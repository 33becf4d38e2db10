"""Joining and leaving a consumer group, for both readers."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Final

import structlog
from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener
from aiokafka.errors import KafkaError

from worker.errors import ConnectionFailedError
from worker.settings import KafkaSettings
from worker.source.reaching import Group, why_unreachable

log = structlog.get_logger(__name__)

_STOP_SECONDS: Final = 3.0
COMMIT_SECONDS: Final = 3.0
"""In which the group coordinator has to take a commit that another one can cover."""


async def join(
    consumer: AIOKafkaConsumer,
    topic: str,
    listener: ConsumerRebalanceListener,
    kafka: KafkaSettings,
    *,
    setting: str,
    group: Group,
    limits: Mapping[str, float],
) -> None:
    """Subscribe and start.

    Args:
        setting: name of the setting that holds the topic, for the error.
        group: the one to join, for the error.
        limits: by setting, seconds in which the group has to let us in, of which the longest counts; three
            session timeouts where these are longer, since it waits that long for a member that has died.

    Raises:
        ConnectionFailedError: no broker answers, or it does not let us in.
        ConfigurationError: there is no such topic, or this user may not read it in this group.
    """
    consumer.subscribe([topic], listener=listener)
    longest, limit = max(
        {**limits, f"three times {group.session_setting}": 3 * group.session_timeout}.items(),
        key=lambda one: one[1],
    )
    try:
        async with asyncio.timeout(limit):  # aiokafka looks for a coordinator without end
            await consumer.start()
    except BaseException as error:
        await stop(consumer)
        if isinstance(error, KafkaError):
            raise await why_unreachable(kafka, error, topic=topic, setting=setting, group=group) from error
        if isinstance(error, TimeoutError):
            raise ConnectionFailedError(
                f"Kafka at kafka.bootstrap_servers={kafka.bootstrap_servers} has not let us into the group "
                f"{group.name} ({group.name_setting}) within {limit:g} s ({longest}): look whether it has "
                "a group coordinator; it has none while offsets.topic.replication.factor is above the number "
                "of brokers."
            ) from error
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
