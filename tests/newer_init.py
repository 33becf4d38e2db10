"""InitProducerId version 3 for aiokafka, which ends at 0, while the embedded broker fails below 3.

With it the whole path of a transaction runs against the embedded broker, fencing included.
What still needs an Apache Kafka: there, records of aborted transactions are hidden.
Only for the embedded broker: with Apache Kafka the tests speak as the product does.
"""

import contextlib
from collections.abc import Iterator
from typing import Any, ClassVar

from aiokafka.protocol.api import RequestStruct, Response
from aiokafka.protocol.transaction import InitProducerIdRequest
from aiokafka.protocol.types import CompactString, Int16, Int32, Int64, Schema, TaggedFields

KEY = 22


class _Response(Response):  # type: ignore[misc]
    API_KEY = KEY
    API_VERSION = 3
    SCHEMA = Schema(
        ("throttle_time_ms", Int32),
        ("error_code", Int16),
        ("producer_id", Int64),
        ("producer_epoch", Int16),
        ("tags", TaggedFields),
    )


class _Request(RequestStruct):  # type: ignore[misc]
    API_KEY = KEY
    API_VERSION = 3
    FLEXIBLE_VERSION: ClassVar[bool] = True
    RESPONSE_TYPE = _Response
    SCHEMA = Schema(
        ("transactional_id", CompactString("utf-8")),
        ("transaction_timeout_ms", Int32),
        ("producer_id", Int64),
        ("producer_epoch", Int16),
        ("tags", TaggedFields),
    )


@contextlib.contextmanager
def newer_init() -> Iterator[None]:
    """Teach this process for as long as the block lasts."""
    old_versions, old_build = InitProducerIdRequest._CLASSES, InitProducerIdRequest.build

    def build(self: Any, version: type[RequestStruct]) -> RequestStruct:
        if version is _Request:
            return _Request(self._transactional_id, self._transaction_timeout_ms, -1, -1, {})
        return old_build(self, version)

    InitProducerIdRequest._CLASSES = (*old_versions, _Request)
    InitProducerIdRequest.build = build
    try:
        yield
    finally:
        InitProducerIdRequest._CLASSES, InitProducerIdRequest.build = old_versions, old_build
