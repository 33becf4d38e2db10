"""What a broker refuses is told as that, and not as a broker that does not answer."""

import asyncio
from unittest.mock import AsyncMock, Mock

import pytest
from aiokafka.errors import (
    ClusterAuthorizationFailedError,
    GroupAuthorizationFailedError,
    InconsistentGroupProtocolError,
    InvalidSessionTimeoutError,
    InvalidTransactionTimeout,
    KafkaConnectionError,
    KafkaError,
    TopicAuthorizationFailedError,
    TransactionalIdAuthorizationFailed,
    UnknownTopicOrPartitionError,
    for_code,
)

from worker.errors import ConfigurationError, ConnectionFailedError
from worker.settings import KafkaSettings, SinkSettings, load_settings
from worker.sink.outputs import outputs_of
from worker.sink.transactions import TransactionalSink
from worker.source import reaching
from worker.source.membership import join
from worker.source.reaching import Group, refusals, why_unreachable

_NOBODY = KafkaSettings(bootstrap_servers="127.0.0.1:1")
_GROUP = Group("workers", "source.group_id", 3.0, "source.session_timeout")
_REFUSED: list[tuple[KafkaError, str]] = [
    (UnknownTopicOrPartitionError(), "There is no topic raw: correct topics.raw or run kbert topics"),
    (TopicAuthorizationFailedError("raw"), "forbids us the topic raw (topics.raw): allow this user Read"),
    (TopicAuthorizationFailedError({"b", "a"}), "Kafka forbids us the topic a, b"),
    (GroupAuthorizationFailedError("workers"), "the consumer group workers: allow this user Read on it"),
    (ClusterAuthorizationFailedError(), "allow this user IdempotentWrite"),
    (TransactionalIdAuthorizationFailed("w.raw.0"), "the transactional id w.raw.0: allow this user Write"),
    (InvalidSessionTimeoutError(), "does not take source.session_timeout=3 s: set it between"),
    (InconsistentGroupProtocolError(), "workers has members of another program: set source.group_id"),
    # As aiokafka hands on a code that a join has no branch for.
    (KafkaError(repr(for_code(81)())), "workers (source.group_id) has as many members as Kafka takes"),
]


@pytest.mark.parametrize(("error", "sentence"), _REFUSED, ids=lambda given: type(given).__name__)
async def test_a_refusal_is_told_before_any_server_is_asked(error: KafkaError, sentence: str) -> None:
    told = await why_unreachable(_NOBODY, error, topic="raw", setting="topics.raw", group=_GROUP)
    assert isinstance(told, ConfigurationError)
    assert sentence in str(told)
    assert "\n" not in str(told)


async def test_without_a_name_it_is_a_sentence_all_the_same() -> None:
    told = await why_unreachable(_NOBODY, UnknownTopicOrPartitionError())
    assert str(told).startswith("There is no topic that the settings name")


async def test_what_is_no_refusal_is_told_as_before() -> None:
    told = await why_unreachable(_NOBODY, KafkaConnectionError("unable to bootstrap"))
    assert isinstance(told, ConnectionFailedError)
    assert "kafka.bootstrap_servers=127.0.0.1:1" in str(told)


def test_in_a_running_client_too() -> None:
    with pytest.raises(ConfigurationError, match="the consumer group workers"), refusals(topic="raw"):
        # As the consumer's background task hands it to the next poll.
        raise KafkaError("Unexpected error during coordination") from GroupAuthorizationFailedError("workers")
    with pytest.raises(KafkaConnectionError), refusals(topic="raw"):
        raise KafkaConnectionError("gone")


async def test_a_broker_that_answers_and_refuses_is_not_called_silent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(reaching, "open_connection", AsyncMock(return_value=Mock()))
    told = await why_unreachable(_NOBODY, KafkaError("InvalidGroupIdError()"), group=_GROUP)
    assert "answers, and does not let us into the consumer group workers: correct source.group_id" in str(
        told
    )
    told = await why_unreachable(_NOBODY, KafkaConnectionError("gone"), group=_GROUP)
    assert str(told).startswith("No Kafka broker answers")


async def test_a_group_without_a_coordinator_is_not_waited_for_without_end() -> None:
    consumer, group = Mock(start=asyncio.Event().wait, stop=AsyncMock()), _GROUP._replace(session_timeout=0.0)
    with pytest.raises(ConnectionFailedError, match=r"\(some\.setting\): .*offsets\.topic\.replication"):
        limits = {"another.setting": 0.0001, "some.setting": 0.001}
        await join(consumer, "raw", Mock(), _NOBODY, setting="topics.raw", group=group, limits=limits)
    consumer.stop.assert_awaited_once_with()


async def test_a_transaction_that_may_last_too_long_is_told_as_that(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = load_settings(_env_file=None, sink=SinkSettings(transaction_timeout=1_000))
    sink = TransactionalSink(settings)
    probe = Mock(start=AsyncMock(side_effect=InvalidTransactionTimeout()), stop=AsyncMock())
    monkeypatch.setattr(sink, "_producer", Mock(return_value=probe))
    with pytest.raises(ConfigurationError, match=r"sink\.transaction_timeout=1000 s: lower it, or raise"):
        await sink.start(*outputs_of(settings, "crypto"))
