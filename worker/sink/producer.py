"""Kafka out: records grouped into batches by partition, acknowledged batch by batch."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Protocol

import structlog
from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError, MessageSizeTooLargeError, UnknownTopicOrPartitionError

from worker.errors import ConnectionFailedError, KbertError
from worker.settings import KafkaSettings, SinkSettings
from worker.sink.limits import MessageLimits
from worker.sink.outputs import Output, find
from worker.sink.record import Header, OutRecord
from worker.sink.writer import BatchWriter, SentBatch
from worker.source.reaching import ask, named_by, refusal, why_unreachable
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
        """Wait until the brokers have every record: an idempotent producer waits for them without end,
        since aiokafka never gives up a batch that it has numbered.

        Returns:
            Indices of records that are too large for the broker; all others are written.

        Raises:
            ConfigurationError: a topic is gone, or this user may not write it.
            ConnectionFailedError: a producer that is not idempotent has not reached the brokers within
                ``sink.request_timeout``.
            KbertError: the brokers answer, and do not take a batch.
        """
        outcomes = await asyncio.gather(*(s.acknowledged for s in self._sent), return_exceptions=True)
        too_large = list(self._too_large)
        for sent, outcome in zip(self._sent, outcomes, strict=True):
            if isinstance(outcome, MessageSizeTooLargeError):
                too_large += await self._sink.send_singly(self._records, sent)
            elif isinstance(outcome, BaseException):
                async with self._sink.explaining(sent.topic):
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
            request_timeout_ms=int(settings.request_timeout * 1000),
            **kafka.client_options(),
        )
        self._request_timeout = settings.request_timeout
        self._stop_timeout = min(5.0, settings.request_timeout)
        self._limits = MessageLimits(kafka)
        self._writer = BatchWriter(
            self._producer, self._limits, settings.max_batch_bytes, patient=kafka.idempotent_producer
        )
        self._setting_of: dict[str, str] = {}

    async def start(self, *outputs: Output) -> None:
        """Connect, and look for topics that have to be there.

        Raises:
            ConnectionFailedError: no broker answers.
            ConfigurationError: a topic is not there, or this user may not do what a producer does.
        """
        self._setting_of = {output.topic: output.setting for output in outputs}
        try:
            await self._producer.start()
            await find(self._producer, self._kafka, outputs)
        except BaseException as error:
            await self.stop()
            if isinstance(error, KafkaError):
                raise await why_unreachable(self._kafka, error) from error
            raise

    async def stop(self) -> None:
        """Flush and close; brokers that are silent are not waited for longer than for a batch."""
        try:
            async with asyncio.timeout(self._stop_timeout):
                await self._producer.stop()
        except TimeoutError:
            log.warning("sink.stop_abandoned", seconds=self._stop_timeout)

    async def send(self, records: Sequence[OutRecord], origins: Sequence[Record] = ()) -> Delivery:
        """Hand records to the producer; waits while its buffers are full, and as ``acknowledged`` does.

        Raises:
            KbertError: as ``acknowledged``.
        """
        too_large = await self._limits.too_large(records)
        async with self.explaining():
            sent = await self._writer.submit(records, [i for i in range(len(records)) if i not in too_large])
        return _Sent(self, records, sent, too_large)

    async def deliver(self, records: Sequence[OutRecord]) -> list[int]:
        """Send, wait until the brokers have every record, and return indices of those that are too large.

        Raises:
            ConnectionFailedError: the brokers could not be reached within ``sink.request_timeout``.
            KbertError: they answer, and have not taken all of it within that time; or as ``acknowledged``.
        """
        try:
            async with asyncio.timeout(self._request_timeout):
                return await (await self.send(records)).acknowledged()
        except TimeoutError as error:
            limit = f"sink.request_timeout={self._request_timeout:g} s"
            raise await self._why_not(TimeoutError(f"no acknowledgement within {limit}")) from error

    async def send_singly(self, records: Sequence[OutRecord], refused: SentBatch) -> list[int]:
        """Send the records of a refused batch one by one, and return those that are refused again."""
        too_large: list[int] = []
        for index in refused.indices:
            async with self.explaining(refused.topic):
                for sent in await self._writer.submit(records, [index]):
                    try:
                        await sent.acknowledged
                    except MessageSizeTooLargeError:
                        too_large.append(index)
        return too_large

    @asynccontextmanager
    async def explaining(self, topic: str | None = None) -> AsyncIterator[None]:
        """What aiokafka raises in the block ends it with one sentence.

        Args:
            topic: the one that is written, where the error does not know it.
        """
        try:
            yield
        except (KafkaError, AssertionError) as error:
            # AssertionError: aiokafka's answer where a topic was made anew with fewer partitions.
            raise await self._why_not(error, topic) from error

    async def _why_not(self, error: Exception, topic: str | None = None) -> KbertError:
        """The sentence for records that were not taken."""
        if topic is not None and self._producer.client.cluster.partitions_for_topic(topic) is None:
            error = UnknownTopicOrPartitionError(topic)  # aiokafka says that it has no leader
        setting = self._setting_of.get(topic or named_by(error))
        if (refused := refusal(error, topic=topic, setting=setting)) is not None:
            return refused
        try:
            await ask(self._kafka)
        except ConnectionFailedError as unreachable:
            return unreachable
        return KbertError(
            f"Kafka at kafka.bootstrap_servers={self._kafka.bootstrap_servers} answers, and does not take "
            f"what is sent{f' to {topic}' if topic else ''} ({error!r}): look at its logs, and start again."
        )
