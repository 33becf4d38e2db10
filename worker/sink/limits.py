"""How large a record a topic takes, asked before anything is sent.

Kafka's answer to a batch that is too large comes after the producer has numbered it. The gap in
the numbers makes an idempotent producer's next batch fail too, and a transaction with it: one
record too many, and a worker that fails on every start. So it is known beforehand.
"""

from collections.abc import Callable, Sequence
from functools import lru_cache
from time import monotonic
from typing import Final

import structlog
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import IncompatibleBrokerVersion, KafkaError
from aiokafka.record.default_records import DefaultRecordBatchBuilder

from worker.settings import KafkaSettings
from worker.sink.record import Header, OutRecord

log = structlog.get_logger(__name__)

_KAFKA_DEFAULT: Final = 1_048_588  # message.max.bytes of a broker that nobody configured
_ASK_AGAIN_SECONDS: Final = 10.0
_BATCH_HEADER: Final = 61  # bytes before the first record
_RECORD_OVERHEAD: Final = 96  # aiokafka counts a batch header, and 21 bytes of lengths, deltas and attributes
_HEADER_OVERHEAD: Final = 10  # lengths of a header's name and value


class MessageLimits:
    """``max.message.bytes`` of topics, asked until the broker has answered.

    Args:
        clock: monotonic seconds.
    """

    def __init__(self, kafka: KafkaSettings, clock: Callable[[], float] = monotonic) -> None:
        self._kafka = kafka
        self._clock = clock
        self._bytes: dict[str, int] = {}
        self._ask_at: dict[str, float] = {}  # where asking has failed

    async def of(self, topic: str) -> int:
        """Bytes of the largest batch; Kafka's default where, or as long as, the broker does not tell."""
        if topic in self._bytes:
            return self._bytes[topic]
        if self._clock() < self._ask_at.get(topic, float("-inf")):
            return _KAFKA_DEFAULT
        try:
            self._bytes[topic] = await self._ask(topic)
        except KafkaError as error:
            self._ask_at[topic] = self._clock() + _ASK_AGAIN_SECONDS
            log.warning("limits.unknown", topic=topic, assumed=_KAFKA_DEFAULT, error=repr(error))
            return _KAFKA_DEFAULT
        return self._bytes[topic]

    async def too_large(self, records: Sequence[OutRecord]) -> list[int]:
        """Indices of records that fit into no batch of their topic."""
        limits = {topic: await self.of(topic) for topic in {record.topic for record in records}}
        least = min(limits.values(), default=0)
        return [
            index
            for index, record in enumerate(records)
            # The exact size only where it matters: to ask for it costs as much as to send the record.
            if _BATCH_HEADER + size_at_most(record) > least
            and _BATCH_HEADER + record_size(record) > limits[record.topic]
        ]

    async def _ask(self, topic: str) -> int:
        admin = AIOKafkaAdminClient(**self._kafka.client_options())
        try:
            await admin.start()
            responses = await admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, topic)])
        except IncompatibleBrokerVersion as error:  # it never will
            log.warning("limits.unknown", topic=topic, assumed=_KAFKA_DEFAULT, error=repr(error))
            return _KAFKA_DEFAULT
        finally:
            await admin.close()
        for response in responses:
            for _, _, _, _, entries in response.resources:
                for name, value, *_ in entries:
                    if name == "max.message.bytes" and value:
                        return int(value)
        return _KAFKA_DEFAULT


def size_at_most(record: OutRecord) -> int:
    """An upper bound of :func:`record_size`, cheaply."""
    size = _RECORD_OVERHEAD + len(record.value) + len(record.key or b"")
    headers = record.headers
    return size + (_headers_at_most(headers) if isinstance(headers, tuple) else _headers_size(headers))


def _headers_size(headers: Sequence[Header]) -> int:
    # UTF-8 has at most 4 bytes a character.
    return sum(_HEADER_OVERHEAD + 4 * len(name) + len(value or b"") for name, value in headers)


_headers_at_most = lru_cache(maxsize=64)(_headers_size)  # all signals have the same


def record_size(record: OutRecord) -> int:
    """Bytes of a record in a batch at most, before compression."""
    size: int = DefaultRecordBatchBuilder.estimate_size_in_bytes(
        record.key, record.value, list(record.headers)
    )
    return size
