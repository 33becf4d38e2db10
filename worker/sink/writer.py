"""Records grouped into batches by partition, for one producer."""

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache

from aiokafka import AIOKafkaProducer
from aiokafka.partitioner import DefaultPartitioner
from aiokafka.producer.message_accumulator import BatchBuilder

from worker.sink.limits import MessageLimits, record_size
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

    def __init__(self, producer: AIOKafkaProducer, limits: MessageLimits) -> None:
        self._producer = producer
        self._limits = limits
        self._partitions: dict[str, list[int]] = {}

    async def submit(self, records: Sequence[OutRecord], indices: Iterable[int]) -> list[SentBatch]:
        """Hand ``records[i]`` for each index to the producer; waits while its buffers are full."""
        open_batches: dict[tuple[str, int], tuple[BatchBuilder, list[int]]] = {}
        sent: list[SentBatch] = []
        for index in indices:
            record = records[index]
            place = (record.topic, await self._partition(record.topic, record.key))
            builder, members = open_batches.get(place) or (self._producer.create_batch(), [])
            full = members and builder.size() + record_size(record) > await self._limits.of(record.topic)
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

    async def _partition(self, topic: str, key: bytes | None) -> int:
        partitions = self._partitions.get(topic)
        if partitions is None:
            partitions = sorted(await self._producer.partitions_for(topic))
            self._partitions[topic] = partitions
        if key is None:
            return int(DefaultPartitioner()(None, partitions, partitions))
        return partitions[_hash(key, len(partitions))]


@lru_cache(maxsize=16_384)
def _hash(key: bytes, count: int) -> int:
    """Kafka's murmur2 in pure Python costs more than the rest of a send; coins repeat."""
    return int(DefaultPartitioner()(key, list(range(count)), []))
