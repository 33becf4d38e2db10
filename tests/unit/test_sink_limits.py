"""The cheap bound never says that a record fits which does not; a limit that is not known is asked again."""

from unittest.mock import AsyncMock, Mock

import pytest
from aiokafka.errors import IncompatibleBrokerVersion, KafkaConnectionError
from hypothesis import given
from hypothesis import strategies as st

from worker.settings import KafkaSettings
from worker.sink import limits
from worker.sink.limits import MessageLimits, record_size, size_at_most
from worker.sink.record import OutRecord

headers = st.lists(st.tuples(st.text(max_size=40), st.none() | st.binary(max_size=300)), max_size=5)


@given(
    key=st.none() | st.binary(max_size=300),
    value=st.binary(max_size=3_000),
    headers=headers,
    fixed=st.booleans(),
)
def test_the_bound_is_never_too_low(
    key: bytes | None, value: bytes, headers: list[tuple[str, bytes | None]], fixed: bool
) -> None:
    record = OutRecord("topic", key, value, tuple(headers) if fixed else headers)
    assert size_at_most(record) >= record_size(record)


async def test_an_assumed_limit_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    entry = ("max.message.bytes", "2000", False, False, False)
    answer = Mock(resources=[(0, "", 2, "out", [entry])])
    admin = Mock(start=AsyncMock(side_effect=KafkaConnectionError()), close=AsyncMock())
    admin.describe_configs = AsyncMock(return_value=[answer])
    monkeypatch.setattr(limits, "AIOKafkaAdminClient", Mock(return_value=admin))
    now = 0.0
    asked = MessageLimits(KafkaSettings(), clock=lambda: now)
    assert await asked.of("out") == 1_048_588
    admin.start.side_effect = None
    now = 9.0
    assert await asked.of("out") == 1_048_588
    assert admin.start.await_count == 1  # a send does not wait for an answer each time
    now = 10.0
    assert (await asked.of("out"), await asked.of("out")) == (2_000, 2_000)
    assert admin.start.await_count == admin.close.await_count == 2


async def test_a_broker_that_cannot_tell_is_asked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    admin = Mock(start=AsyncMock(), close=AsyncMock())
    admin.describe_configs = AsyncMock(side_effect=IncompatibleBrokerVersion())
    monkeypatch.setattr(limits, "AIOKafkaAdminClient", Mock(return_value=admin))
    now = 0.0
    asked = MessageLimits(KafkaSettings(), clock=lambda: now)
    assert await asked.of("out") == 1_048_588
    now = 100.0
    assert await asked.of("out") == 1_048_588
    assert admin.start.await_count == 1
