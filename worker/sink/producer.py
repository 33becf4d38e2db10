"""Kafka out: records grouped into batches by partition, acknowledged batch by batch."""

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import structlog
from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError, MessageSizeTooLargeError
from aiokafka.partitioner import DefaultPartitioner
from aiokafka.producer.message_accumulator import BatchBuilder

from worker.errors import ConnectionFailedError
from worker.settings import KafkaSettings, SinkSettings

log = structlog.get_logger(__name__)

Header = tuple[str, bytes | None]


@dataclass(frozen=True, slots=True)
class OutRecord:
    """One record to be written."""

    topic: str
    key: bytes | None
    value: bytes
    headers: Sequence[Header] = ()


@dataclass(frozen=True, slots=True)
class _Sent:
    """A batch on its way; ``indices`` are positions in the call's records."""

    indices: list[int]
    topic: str
    partition: int
    acknowledged: "asyncio.Future[object]"


class Delivery:
    """The acknowledgements of one ``KafkaSink.send``."""

    def __init__(self, sink: "KafkaSink", records: Sequence[OutRecord], sent: list[_Sent]) -> None:
        self._sink = sink
        self._records = records
        self._sent = sent

    async def acknowledged(self) -> list[int]:
        """Wait until the brokers have every record.

        Returns:
            Indices of records that the broker refuses as too large; all others are written.

        Raises:
            KafkaError: the brokers could not be reached within ``sink.request_timeout``.
        """
        outcomes = await asyncio.gather(*(s.acknowledged for s in self._sent), return_exceptions=True)
        too_large: list[int] = []
        for sent, outcome in zip(self._sent, outcomes, strict=True):
            if isinstance(outcome, MessageSizeTooLargeError):
                too_large += await self._sink.send_singly(self._records, sent)
            elif isinstance(outcome, BaseException):
                raise outcome
        return too_large


class KafkaSink:
    """Sends in the order of the calls; a ``Delivery`` tells when the brokers have it.

    ``send_batch`` costs one future a batch instead of one a record, and aiokafka sends
    one batch of a partition at a time, so order within a partition is kept.
    """

    def __init__(self, kafka: KafkaSettings, settings: SinkSettings) -> None:
        self._address = kafka.bootstrap_servers
        self._producer = AIOKafkaProducer(
            acks="all",
            enable_idempotence=kafka.idempotent_producer,
            compression_type=settings.compression,
            max_batch_size=settings.max_batch_bytes,
            max_request_size=settings.max_request_bytes,
            request_timeout_ms=int(settings.request_timeout * 1000),
            **kafka.client_options(),
        )
        self._stop_timeout = min(10.0, settings.request_timeout)
        self._partitions: dict[str, list[int]] = {}

    async def start(self) -> None:
        """Connect.

        Raises:
            ConnectionFailedError: no broker answers.
        """
        try:
            await self._producer.start()
        except KafkaError as error:
            await self._producer.stop()
            raise ConnectionFailedError(
                f"No Kafka broker answers at kafka.bootstrap_servers={self._address}: "
                f"start one or correct the setting ({error})."
            ) from error

    async def stop(self) -> None:
        """Flush and close; brokers that are silent are not waited for longer than for a batch."""
        try:
            async with asyncio.timeout(self._stop_timeout):
                await self._producer.stop()
        except TimeoutError:
            log.warning("sink.stop_abandoned", seconds=self._stop_timeout)

    async def send(self, records: Sequence[OutRecord]) -> Delivery:
        """Hand records to the producer; waits while its buffers are full."""
        return Delivery(self, records, await self._submit(records, range(len(records))))

    async def send_singly(self, records: Sequence[OutRecord], refused: _Sent) -> list[int]:
        """Send the records of a refused batch one by one, and return those that are refused again."""
        too_large: list[int] = []
        for index in refused.indices:
            for sent in await self._submit(records, [index]):
                try:
                    await sent.acknowledged
                except MessageSizeTooLargeError:
                    too_large.append(index)
        return too_large

    async def _submit(self, records: Sequence[OutRecord], indices: Iterable[int]) -> list[_Sent]:
        open_batches: dict[tuple[str, int], tuple[BatchBuilder, list[int]]] = {}
        sent: list[_Sent] = []
        for index in indices:
            record = records[index]
            place = (record.topic, await self._partition(record.topic, record.key))
            builder, members = open_batches.get(place) or (self._producer.create_batch(), [])
            if not self._append(builder, record):
                sent.append(await self._flush(place, builder, members))
                builder, members = self._producer.create_batch(), []
                self._append(builder, record)  # the first record of a batch always fits
            members.append(index)
            open_batches[place] = (builder, members)
        for place, (builder, members) in open_batches.items():
            sent.append(await self._flush(place, builder, members))
        return sent

    async def _flush(self, place: tuple[str, int], builder: BatchBuilder, members: list[int]) -> _Sent:
        topic, partition = place
        acknowledged = await self._producer.send_batch(builder, topic, partition=partition)
        return _Sent(members, topic, partition, acknowledged)

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
