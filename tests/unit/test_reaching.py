"""What a broker refuses is told as that, and not as a broker that does not answer."""

import pytest
from aiokafka.errors import (
    ClusterAuthorizationFailedError,
    GroupAuthorizationFailedError,
    KafkaConnectionError,
    KafkaError,
    TopicAuthorizationFailedError,
    TransactionalIdAuthorizationFailed,
    UnknownTopicOrPartitionError,
)

from worker.errors import ConfigurationError, ConnectionFailedError
from worker.settings import KafkaSettings
from worker.source.reaching import refusals, why_unreachable

_NOBODY = KafkaSettings(bootstrap_servers="127.0.0.1:1")
_REFUSED: list[tuple[KafkaError, str]] = [
    (UnknownTopicOrPartitionError(), "There is no topic raw: correct topics.raw or run kbert topics"),
    (TopicAuthorizationFailedError("raw"), "forbids us the topic raw (topics.raw): allow this user Read"),
    (TopicAuthorizationFailedError({"b", "a"}), "Kafka forbids us the topic a, b"),
    (GroupAuthorizationFailedError("workers"), "the consumer group workers: allow this user Read on it"),
    (ClusterAuthorizationFailedError(), "allow this user IdempotentWrite"),
    (TransactionalIdAuthorizationFailed("w.raw.0"), "the transactional id w.raw.0: allow this user Write"),
]


@pytest.mark.parametrize(("error", "sentence"), _REFUSED, ids=lambda given: type(given).__name__)
async def test_a_refusal_is_told_before_any_server_is_asked(error: KafkaError, sentence: str) -> None:
    told = await why_unreachable(_NOBODY, error, topic="raw", setting="topics.raw")
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
