"""Kafka out: records grouped into batches by partition, acknowledged batch by batch."""

import asyncio
from collections.abc import Sequence
from typing import Protocol

import structlog
from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError, MessageSizeTooLargeError

from worker.settings import KafkaSettings, SinkSettings
from worker.sink.limits import MessageLimits
from worker.sink.record import Header, OutRecord
from worker.sink.writer import BatchWriter, SentBatch
from worker.source.reaching import why_unreachable
from worker.source.record import Record

__all__ = ["Delivery", "Header", "KafkaSink", "OutRecord", "Sink"]

log = structlog.get_logger(__name__)


class Delivery(Protocol):
    """The acknowledgements of one ``send``."""

    async def acknowledged(self) -> list[int]:
        """Wait until what was sent is safe; indices of records that are too large for the broker."""
        ...


class Sink(Protocol):
    """Takes the outcome of raw records."""

    async def send(self, records: Sequence[OutRecord], origins: Sequence[Record]) -> Delivery:
        """Take records; ``records[i]`` is the outcome of ``origins[i]``."""
        ...


class _Sent:
    """The acknowledgements of one ``KafkaSink.send``."""

    def __init__(
        self, sink: "KafkaSink", records: Sequence[OutRecord], sent: list[SentBatch], too_large: list[int]
    ) -> None:
        self._sink = sink
        self._records = records
        self._sent = sent
        self._too_large = too_large

    async def acknowledged(self) -> list[int]:
        """Wait until the brokers have every record.

        Returns:
            Indices of records that are too large for the broker; all others are written.

        Raises:
            KafkaError: the brokers could not be reached within ``sink.request_timeout``.
        """
        outcomes = await asyncio.gather(*(s.acknowledged for s in self._sent), return_exceptions=True)
        too_large = list(self._too_large)
        for sent, outcome in zip(self._sent, outcomes, strict=True):
            if isinstance(outcome, MessageSizeTooLargeError):
                too_large += await self._sink.send_singly(self._records, sent)
            elif isinstance(outcome, BaseException):
                raise outcome
        return too_large


class KafkaSink:
    """Sends in the order of the calls; a ``Delivery`` tells when the brokers have it."""

    def __init__(self, kafka: KafkaSettings, settings: SinkSettings) -> None:
        self._kafka = kafka
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
        self._limits = MessageLimits(kafka)
        self._writer = BatchWriter(self._producer, self._limits, settings.max_batch_bytes)

    async def start(self) -> None:
        """Connect.

        Raises:
            ConnectionFailedError: no broker answers.
        """
        try:
            await self._producer.start()
        except KafkaError as error:
            await self._producer.stop()
            raise await why_unreachable(self._kafka, error) from error

    async def stop(self) -> None:
        """Flush and close; brokers that are silent are not waited for longer than for a batch."""
        try:
            async with asyncio.timeout(self._stop_timeout):
                await self._producer.stop()
        except TimeoutError:
            log.warning("sink.stop_abandoned", seconds=self._stop_timeout)

    async def send(self, records: Sequence[OutRecord], origins: Sequence[Record] = ()) -> Delivery:
        """Hand records to the producer; waits while its buffers are full."""
        too_large = await self._limits.too_large(records)
        sent = await self._writer.submit(records, [i for i in range(len(records)) if i not in too_large])
        return _Sent(self, records, sent, too_large)

    async def deliver(self, records: Sequence[OutRecord]) -> list[int]:
        """Send, wait until the brokers have every record, and return indices of those that are too large.

        Raises:
            ConnectionFailedError: the brokers could not be reached within ``sink.request_timeout``.
        """
        try:
            return await (await self.send(records)).acknowledged()
        except KafkaError as error:
            raise await why_unreachable(self._kafka, error) from error

    async def send_singly(self, records: Sequence[OutRecord], refused: SentBatch) -> list[int]:
        """Send the records of a refused batch one by one, and return those that are refused again."""
        too_large: list[int] = []
        for index in refused.indices:
            for sent in await self._writer.submit(records, [index]):
                try:
                    await sent.acknowledged
                except MessageSizeTooLargeError:
                    too_large.append(index)
        return too_large
