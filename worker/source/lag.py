"""How far a consumer is behind, as the broker tells it."""

import asyncio

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError, UnknownTopicOrPartitionError


async def lag_of(consumer: AIOKafkaConsumer, topic: str, timeout: float) -> dict[TopicPartition, int] | None:
    """Records of each assigned partition that were not read yet; None where no broker answers in time.

    A member without partitions asks as well, so that it knows of a broker that has gone.

    Raises:
        UnknownTopicOrPartitionError: such a member finds that there is no topic to have partitions of.
    """
    mine = consumer.assignment()
    try:
        async with asyncio.timeout(timeout):
            if mine:
                ends = await consumer.end_offsets(mine)
                return {tp: max(0, end - await consumer.position(tp)) for tp, end in ends.items()}
            topics = await consumer.topics()
    except (TimeoutError, KafkaError):
        return None
    if topic not in topics:
        raise UnknownTopicOrPartitionError(topic)
    return {}
