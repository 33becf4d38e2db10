"""SASL against a real Apache Kafka; the embedded broker has none.

Beside ``KBERT_TEST_KAFKA``, ``KBERT_TEST_KAFKA_SASL`` names the listener (SASL_PLAINTEXT),
``KBERT_TEST_KAFKA_USERNAME`` and ``…_PASSWORD`` a user of PLAIN and SCRAM that may create topics; for
OAUTHBEARER the token endpoint in ``KBERT_TEST_KAFKA_TOKEN_URL`` knows them as client id and secret.
"""

import os
import uuid
from typing import Any, Literal

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from pydantic import SecretStr

from worker.errors import ConnectionFailedError
from worker.settings import KafkaSettings, Settings, TopicSettings, load_settings
from worker.sink.topics import create_topics, describe_topics

Mechanism = Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER"]
MECHANISMS: list[Mechanism] = ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER"]

pytestmark = [
    pytest.mark.apache_kafka,
    pytest.mark.skipif("KBERT_TEST_KAFKA_SASL" not in os.environ, reason="needs KBERT_TEST_KAFKA_SASL"),
    pytest.mark.parametrize("mechanism", MECHANISMS),
]


def settings_of(mechanism: Mechanism, password: str | None = None) -> Settings:
    url = os.environ.get("KBERT_TEST_KAFKA_TOKEN_URL")
    if mechanism == "OAUTHBEARER" and url is None:
        pytest.skip("needs KBERT_TEST_KAFKA_TOKEN_URL")
    name = os.environ["KBERT_TEST_KAFKA_USERNAME"]
    secret = SecretStr(password or os.environ["KBERT_TEST_KAFKA_PASSWORD"])
    who: dict[str, Any] = (
        {"oauth_token_url": url, "oauth_client_id": name, "oauth_client_secret": secret}
        if mechanism == "OAUTHBEARER"
        else {"sasl_username": name, "sasl_password": secret}
    )
    unique = uuid.uuid4().hex[:12]
    return load_settings(
        _env_file=None,
        kafka=KafkaSettings(
            bootstrap_servers=os.environ["KBERT_TEST_KAFKA_SASL"],
            security_protocol="SASL_PLAINTEXT",
            sasl_mechanism=mechanism,
            **who,
        ),
        topics=TopicSettings(
            raw=f"raw-{unique}", signals=f"signals-{unique}", dead_letter=f"dead-{unique}", partitions=1
        ),
    )


async def test_written_and_read(mechanism: Mechanism) -> None:
    settings = settings_of(mechanism)
    await create_topics(settings)
    options = settings.kafka.client_options()
    async with AIOKafkaProducer(**options) as producer:
        await producer.send_and_wait(settings.topics.raw, b"a")
    consumer = AIOKafkaConsumer(settings.topics.raw, auto_offset_reset="earliest", **options)
    async with consumer:
        assert (await consumer.getone()).value == b"a"


async def test_a_wrong_password_is_one_sentence(mechanism: Mechanism) -> None:
    with pytest.raises(ConnectionFailedError, match=r"kafka\.(sasl_password|oauth_client_secret)") as refused:
        await describe_topics(settings_of(mechanism, password="not-the-password"))
    assert "\n" not in str(refused.value)
    assert "not-the-password" not in str(refused.value)
