"""Records grouped into batches by partition, for one producer."""

import asyncio
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from aiokafka import AIOKafkaProducer
from aiokafka.producer.message_accumulator import BatchBuilder

from worker.sink.limits import MessageLimits, size_at_most
from worker.sink.partitioning import partition_of
from worker.sink.record import OutRecord


@dataclass(frozen=True, slots=True)
class SentBatch:
    """A batch on its way; ``indices`` are positions in the call's records."""

    indices: list[int]
    topic: str
    partition: int
    acknowledged: "asyncio.Future[object]"


class BatchWriter:
    """``send_batch`` costs one future a batch instead of one a record, and aiokafka sends one batch
    of a partition at a time, so order within a partition is kept.
    """

    def __init__(self, producer: AIOKafkaProducer, limits: MessageLimits, max_batch_bytes: int) -> None:
        self._producer = producer
        self._limits = limits
        self._max_batch_bytes = max_batch_bytes
        self._partitions: dict[str, tuple[int, ...]] = {}

    async def submit(self, records: Sequence[OutRecord], indices: Iterable[int]) -> list[SentBatch]:
        """Hand ``records[i]`` for each index to the producer; waits while its buffers are full."""
        open_batches: dict[tuple[str, int], tuple[BatchBuilder, list[int]]] = {}
        sent: list[SentBatch] = []
        limits: dict[str, int] = {}
        for index in indices:
            record = records[index]
            limit = limits.get(record.topic)
            if limit is None:  # one look a topic: an await a record would cost more than the record
                limit = limits[record.topic] = await self._limits.of(record.topic)
                await self._learn_partitions(record.topic)
            place = (record.topic, self._partition(record.topic, record.key))
            builder, members = open_batches.get(place) or (self._producer.create_batch(), [])
            # The builder itself is full at `max_batch_bytes`; the topic's limit is rarely below that.
            full = limit < self._max_batch_bytes and members and builder.size() + size_at_most(record) > limit
            if full or not self._append(builder, record):
                sent.append(await self._flush(place, builder, members))
                builder, members = self._producer.create_batch(), []
                self._append(builder, record)  # the first record of a batch always fits
            members.append(index)
            open_batches[place] = (builder, members)
        for place, (builder, members) in open_batches.items():
            sent.append(await self._flush(place, builder, members))
        return sent

    async def _flush(self, place: tuple[str, int], builder: BatchBuilder, members: list[int]) -> SentBatch:
        topic, partition = place
        acknowledged = await self._producer.send_batch(builder, topic, partition=partition)
        return SentBatch(members, topic, partition, acknowledged)

    @staticmethod
    def _append(builder: BatchBuilder, record: OutRecord) -> bool:
        appended = builder.append(
            timestamp=None, key=record.key, value=record.value, headers=list(record.headers)
        )
        return appended is not None

    async def _learn_partitions(self, topic: str) -> None:
        if topic not in self._partitions:
            self._partitions[topic] = tuple(sorted(await self._producer.partitions_for(topic)))

    def _partition(self, topic: str, key: bytes | None) -> int:
        partitions = self._partitions[topic]
        return random.choice(partitions) if key is None else partition_of(key, partitions)
