"""How far a consumer is behind, as the broker tells it."""

import asyncio

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError


async def lag_of(consumer: AIOKafkaConsumer, timeout: float) -> dict[TopicPartition, int] | None:
    """Records of each assigned partition that were not read yet; None where no broker answers in time.

    A member without partitions asks as well, so that it knows of a broker that has gone.
    """
    mine = consumer.assignment()
    try:
        async with asyncio.timeout(timeout):
            if not mine:
                await consumer.topics()
                return {}
            ends = await consumer.end_offsets(mine)
            return {tp: max(0, end - await consumer.position(tp)) for tp, end in ends.items()}
    except (TimeoutError, KafkaError):
        return None
