"""Records grouped into batches by partition, for one producer."""

import asyncio
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import structlog
from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaTimeoutError, UnknownTopicOrPartitionError
from aiokafka.producer.message_accumulator import BatchBuilder

from worker.sink.limits import MessageLimits, size_at_most
from worker.sink.partitioning import partitions_of
from worker.sink.record import OutRecord

log = structlog.get_logger(__name__)


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

    Args:
        patient: wait for room without end, as an idempotent producer does for its acknowledgements;
            KafkaTimeoutError after the producer's request timeout otherwise.
    """

    def __init__(
        self,
        producer: AIOKafkaProducer,
        limits: MessageLimits,
        max_batch_bytes: int,
        *,
        patient: bool = False,
    ) -> None:
        self._patient = patient
        self._producer = producer
        self._limits = limits
        self._max_batch_bytes = max_batch_bytes
        self._partitions: dict[str, tuple[int, ...]] = {}

    async def submit(self, records: Sequence[OutRecord], indices: Iterable[int]) -> list[SentBatch]:
        """Hand ``records[i]`` for each index to the producer; waits while its buffers are full.

        Raises:
            UnknownTopicOrPartitionError: with the name of the topic that is not there.
        """
        topics: defaultdict[str, list[int]] = defaultdict(list)
        for index in indices:
            topics[records[index].topic].append(index)
        sent: list[SentBatch] = []
        for topic, members in topics.items():
            try:
                sent += await self._submit_to(topic, records, members)
            except UnknownTopicOrPartitionError as error:  # aiokafka does not say which
                raise UnknownTopicOrPartitionError(topic) from error
        return sent

    async def _submit_to(
        self, topic: str, records: Sequence[OutRecord], indices: Sequence[int]
    ) -> list[SentBatch]:
        limit = await self._limits.of(topic)
        sent: list[SentBatch] = []
        for partition, chosen in (await self._by_partition(topic, records, indices)).items():
            for builder, taken in self._batches(records, chosen, limit):
                acknowledged = await self._send_batch(builder, topic, partition)
                sent.append(SentBatch(taken, topic, partition, acknowledged))
        return sent

    async def _send_batch(
        self, builder: BatchBuilder, topic: str, partition: int
    ) -> "asyncio.Future[object]":
        while True:
            try:
                acknowledged: asyncio.Future[object] = await self._producer.send_batch(
                    builder, topic, partition=partition
                )
            except KafkaTimeoutError:  # the batch was not taken, so it may be offered again
                if not self._patient:
                    raise
                log.warning("sink.no_room", topic=topic, partition=partition)
            else:
                return acknowledged

    async def _by_partition(
        self, topic: str, records: Sequence[OutRecord], indices: Sequence[int]
    ) -> Mapping[int, list[int]]:
        if topic not in self._partitions:
            self._partitions[topic] = tuple(sorted(await self._producer.partitions_for(topic)))
        found: defaultdict[int, list[int]] = defaultdict(list)
        partitions = partitions_of([records[index].key for index in indices], self._partitions[topic])
        for index, partition in zip(indices, partitions, strict=True):
            found[partition].append(index)
        return found

    def _batches(
        self, records: Sequence[OutRecord], indices: Iterable[int], limit: int
    ) -> Iterator[tuple[BatchBuilder, list[int]]]:
        """The records of one partition in as few batches as they fit into."""
        # The builder itself is full at `max_batch_bytes`; the topic's limit is rarely below that.
        look_at_size = limit < self._max_batch_bytes
        builder: BatchBuilder = self._producer.create_batch()
        taken: list[int] = []
        for index in indices:
            record = records[index]
            full = look_at_size and taken and builder.size() + size_at_most(record) > limit
            if full or not _append(builder, record):
                yield builder, taken
                builder, taken = self._producer.create_batch(), []
                _append(builder, record)  # the first record of a batch always fits
            taken.append(index)
        yield builder, taken


def _append(builder: BatchBuilder, record: OutRecord) -> bool:
    appended = builder.append(
        timestamp=None, key=record.key, value=record.value, headers=list(record.headers)
    )
    return appended is not None
