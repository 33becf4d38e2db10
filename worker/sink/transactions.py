"""Kafka out, exactly once: signals, dead letters and offsets in one transaction per input partition.

aiokafka cannot pass the consumer's generation with the offsets, so the group does not fence a
member that it has thrown out. The producer does: its transactional.id is fixed by group, topic and
partition, and whoever opens it last is the only one whose transactions the broker takes. A new owner
opens it first and reads the committed offset after that, so it sees all that its predecessor ever
committed, and its predecessor commits nothing more.

A transaction is opened when all its records are there and ends as soon as they are written.
Whatever goes wrong in it has one mend: open the producer anew, which aborts or completes what was
open, and read on from the committed offset.
"""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

import structlog
from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.errors import (
    IncompatibleBrokerVersion,
    InvalidTransactionTimeout,
    KafkaConnectionError,
    KafkaError,
    MessageSizeTooLargeError,
    ProducerFenced,
    UnknownError,
)

from worker.errors import ConfigurationError, ConnectionFailedError, KbertError
from worker.settings import Settings
from worker.sink.limits import MessageLimits, record_size
from worker.sink.outputs import Output, find
from worker.sink.producer import Delivery
from worker.sink.record import OutRecord
from worker.sink.writer import BatchWriter
from worker.source.committing import Committed
from worker.source.reaching import FORBIDDEN, refusal, why_unreachable
from worker.source.record import Record
from worker.telemetry import metrics

log = structlog.get_logger(__name__)

_MAX_FAILURES = 5


@dataclass(slots=True)
class _Lane:
    """One input partition's producer, and the outcomes that wait for a transaction, by raw offset."""

    producer: AIOKafkaProducer
    writer: BatchWriter
    ready: dict[int, OutRecord] = field(default_factory=dict)
    bytes_kept: int = 0

    def keep(self, offset: int, record: OutRecord) -> None:
        """A later outcome of the same offset takes the place of the first."""
        self.drop(offset)
        self.ready[offset] = record
        self.bytes_kept += record_size(record)

    def drop(self, offset: int) -> None:
        """Forget an outcome."""
        record = self.ready.pop(offset, None)
        if record is not None:
            self.bytes_kept -= record_size(record)


class _Kept:
    """Nothing is on its way: the records wait for the transaction that commits their offsets."""

    def __init__(self, too_large: list[int]) -> None:
        self._too_large = too_large

    async def acknowledged(self) -> list[int]:
        """Indices of records that their topic does not take."""
        return self._too_large


class TransactionalSink:
    """Keeps outcomes until their offsets may be committed, and writes both in one transaction.

    It is the pipeline's ``Sink`` and the source's ``Committer``.
    """

    def __init__(self, settings: Settings, pipeline: str = "crypto") -> None:
        self._pipeline = pipeline
        self._kafka = settings.kafka
        self._settings = settings.sink
        self._group = settings.source.group_id
        self._topics = (settings.topics.signals, settings.topics.dead_letter)
        self._limits = MessageLimits(settings.kafka)
        self._lanes: dict[TopicPartition, _Lane] = {}
        self._failures: dict[TopicPartition, int] = {}
        self._closing: set[asyncio.Task[None]] = set()
        self._due = asyncio.Event()
        self._round = asyncio.Event()  # set after each round of transactions
        for outcome in ("committed", "failed", "fenced"):
            metrics.TRANSACTIONS.labels(self._pipeline, outcome)  # there from the start, as in the pipeline
        self._stop_timeout = min(5.0, settings.sink.request_timeout)
        # While partitions are assigned aiokafka sends no heartbeat.
        self._open_timeout = min(settings.sink.request_timeout, settings.source.session_timeout / 2)

    async def start(self, *outputs: Output) -> None:
        """Find out whether the broker takes transactions, and look for topics that have to be there.

        Raises:
            ConfigurationError: it does not, or not from this user; or a topic is not there.
            ConnectionFailedError: no broker answers.
        """
        probe = self._producer(f"{self._group}.start")
        try:
            async with asyncio.timeout(self._settings.request_timeout):
                await probe.start()
            await find(probe, self._kafka, outputs)
        except FORBIDDEN as error:
            raise ConfigurationError(
                f"Kafka forbids the transactional ids that begin with {self._group!r} "
                f"({type(error).__name__}): allow them Write and Describe, or set delivery=at_least_once."
            ) from error
        except (UnknownError, IncompatibleBrokerVersion, NotImplementedError) as error:
            raise ConfigurationError(
                f"The broker at kafka.bootstrap_servers={self._kafka.bootstrap_servers} has no transactions "
                f"({type(error).__name__}): set delivery=at_least_once, or use Apache Kafka."
            ) from error
        except InvalidTransactionTimeout as error:
            raise self._too_patient() from error
        except KafkaConnectionError as error:
            raise await why_unreachable(self._kafka, error) from error
        except (KafkaError, TimeoutError) as error:
            raise self._unreachable(error, self._settings.request_timeout) from error
        finally:
            await self._close(probe)

    async def stop(self) -> None:
        """Close the producers; brokers that are silent are not waited for."""
        await self.release(list(self._lanes))
        if self._closing:
            _, late = await asyncio.wait(self._closing, timeout=self._stop_timeout)
            for task in late:
                task.cancel()
            if late:
                log.warning("sink.stop_abandoned", seconds=self._stop_timeout)

    async def send(self, records: Sequence[OutRecord], origins: Sequence[Record]) -> Delivery:
        """Keep records until their offsets are committed; waits for a round when many are kept."""
        too_large = await self._limits.too_large(records)
        if self._fullness() >= 2.0:
            # One round and no more: what waits behind an unfinished offset stays kept after it.
            self._round.clear()
            self._due.set()
            await self._round.wait()
        for index, (record, origin) in enumerate(zip(records, origins, strict=True)):
            lane = self._lanes.get(origin.claim.partition)
            if lane is not None and origin.claim.active and index not in too_large:
                lane.keep(origin.offset, record)
        if self._fullness() >= 1.0:
            self._due.set()
        return _Kept(too_large)

    async def due(self) -> None:
        """Wait until the next round of transactions: by time, or earlier by records."""
        with suppress(TimeoutError):
            async with asyncio.timeout(self._settings.transaction_interval):
                await self._due.wait()
        self._due.clear()

    async def claim(self, partitions: Iterable[TopicPartition]) -> None:
        """Open the producers: after that no former owner commits anything.

        Raises:
            ConnectionFailedError: the broker does not answer within ``sink.request_timeout``, or half of
                ``source.session_timeout`` where that is shorter.
            ConfigurationError: it forbids this user a transactional id.
        """
        # All are waited for: one that opened late would take the place of one that was opened since.
        results = await asyncio.gather(
            *(self._open(partition) for partition in partitions), return_exceptions=True
        )
        for result in results:
            if isinstance(result, BaseException):
                raise result

    async def release(self, partitions: Iterable[TopicPartition]) -> None:
        """Drop what is kept for these partitions, and close their producers in the background."""
        for partition in partitions:
            lane = self._lanes.pop(partition, None)
            if lane is not None:
                task = asyncio.create_task(self._close(lane.producer))
                self._closing.add(task)
                task.add_done_callback(self._closing.discard)

    async def commit(self, positions: Mapping[TopicPartition, int]) -> dict[TopicPartition, Committed]:
        """One transaction for each partition: its outcomes below the position, and the position.

        Raises:
            KbertError: a partition's transactions fail again and again, or for a reason that stays.
        """
        mine = {partition: self._lanes[partition] for partition in positions if partition in self._lanes}
        try:
            results = await asyncio.gather(
                *(self._transact(partition, lane, positions[partition]) for partition, lane in mine.items()),
                return_exceptions=True,
            )
        finally:
            self._round.set()
        for result in results:
            if isinstance(result, BaseException):
                raise result
        return {p: r for p, r in zip(mine, results, strict=True) if not isinstance(r, BaseException)}

    async def _transact(self, partition: TopicPartition, lane: _Lane, position: int) -> Committed:
        offsets = sorted(offset for offset in lane.ready if offset < position)
        try:
            async with asyncio.timeout(self._settings.request_timeout):
                await self._write(lane, partition, position, [lane.ready[offset] for offset in offsets])
        except ProducerFenced:
            log.warning("transaction.fenced", partition=partition.partition)
            metrics.TRANSACTIONS.labels(self._pipeline, "fenced").inc()
            await self._drop(partition, lane)
            return Committed.FENCED
        except FORBIDDEN as error:
            raise ConfigurationError(
                f"Kafka forbids a transaction of {partition.topic}:{partition.partition} ({error!r}): allow "
                f"Write on {' and '.join(self._topics)}, Read on the group {self._group}, and its "
                "transactional ids."
            ) from error
        except MessageSizeTooLargeError as error:
            raise ConfigurationError(
                f"The broker refuses a batch as too large: raise max.message.bytes of "
                f"{' and '.join(self._topics)}, or restart the worker if it was lowered."
            ) from error
        except (KafkaError, TimeoutError, AssertionError) as error:
            # AssertionError: aiokafka's answer to a call in the state that its dead sender left behind.
            await self._drop(partition, lane)
            return self._failed(partition, error)
        for offset in offsets:
            lane.drop(offset)
        self._failures.pop(partition, None)
        metrics.TRANSACTIONS.labels(self._pipeline, "committed").inc()
        return Committed.DONE

    async def _drop(self, partition: TopicPartition, lane: _Lane) -> None:
        """Release the lane, and not one that has been opened in its place."""
        if self._lanes.get(partition) is lane:
            await self.release([partition])

    async def _write(
        self, lane: _Lane, partition: TopicPartition, position: int, records: Sequence[OutRecord]
    ) -> None:
        await lane.producer.begin_transaction()
        # Offsets first and awaited: added beside records they can end up outside (aiokafka #1004).
        await lane.producer.send_offsets_to_transaction({partition: position}, self._group)
        sent = await lane.writer.submit(records, range(len(records)))
        outcomes = await asyncio.gather(*(batch.acknowledged for batch in sent), return_exceptions=True)
        for outcome in outcomes:
            # aiokafka commits a transaction whose batches have failed: this is what keeps their offsets back.
            if isinstance(outcome, BaseException):
                raise outcome
        await lane.producer.commit_transaction()

    def _failed(self, partition: TopicPartition, error: Exception) -> Committed:
        failures = self._failures[partition] = self._failures.get(partition, 0) + 1
        metrics.TRANSACTIONS.labels(self._pipeline, "failed").inc()
        log.warning("transaction.failed", partition=partition.partition, times=failures, error=repr(error))
        if failures >= _MAX_FAILURES:
            raise KbertError(
                f"{failures} transactions of {partition.topic}:{partition.partition} have failed one after "
                f"the other, the last by {error!r}: the worker stops, to be started anew."
            ) from error
        return Committed.FAILED

    async def _open(self, partition: TopicPartition) -> None:
        await self.release([partition])
        producer = self._producer(f"{self._group}.{partition.topic}.{partition.partition}")
        try:
            async with asyncio.timeout(self._open_timeout):
                await producer.start()
        except BaseException as error:
            await self._close(producer)
            if isinstance(error, InvalidTransactionTimeout):
                raise self._too_patient() from error
            if isinstance(error, KafkaError | TimeoutError):
                raise (refusal(error) or self._unreachable(error, self._open_timeout)) from error
            raise
        self._lanes[partition] = _Lane(
            producer, BatchWriter(producer, self._limits, self._settings.max_batch_bytes)
        )

    def _producer(self, transactional_id: str) -> AIOKafkaProducer:
        return AIOKafkaProducer(
            acks="all",
            transactional_id=transactional_id,
            transaction_timeout_ms=int(self._settings.transaction_timeout * 1000),
            compression_type=self._settings.compression,
            max_batch_size=self._settings.max_batch_bytes,
            request_timeout_ms=int(self._settings.request_timeout * 1000),
            **self._kafka.client_options(),
        )

    @staticmethod
    async def _close(producer: AIOKafkaProducer) -> None:
        try:
            await producer.stop()
        except (KafkaError, AssertionError) as error:  # a fenced producer's sender raises once more
            log.info("producer.closed", after=repr(error))

    def _fullness(self) -> float:
        """What is kept, by the nearer of its two bounds; from 1 on a commit is due."""
        lanes = self._lanes.values()
        return max(
            sum(len(lane.ready) for lane in lanes) / self._settings.transaction_records,
            sum(lane.bytes_kept for lane in lanes) / self._settings.transaction_bytes,
        )

    def _too_patient(self) -> ConfigurationError:
        return ConfigurationError(
            f"Kafka does not take sink.transaction_timeout={self._settings.transaction_timeout:g} s: lower "
            "it, or raise the broker's transaction.max.timeout.ms."
        )

    def _unreachable(self, error: BaseException, seconds: float) -> ConnectionFailedError:
        return ConnectionFailedError(
            f"Kafka at kafka.bootstrap_servers={self._kafka.bootstrap_servers} does not open a transactional "
            f"producer within {seconds:g} s (sink.request_timeout, or half of source.session_timeout: "
            f"{error!r}): start it or correct the setting."
        )
