"""Fixtures that every test may use: servers, topics, a Redis prefix."""

import contextlib
import uuid
from collections.abc import Iterator

import pytest
import redis
import structlog

from tests.newer_init import newer_init
from tests.servers import KafkaServer, Topics, kafka_server, redis_server


@pytest.fixture(scope="session", autouse=True)
def _loggers_are_not_cached() -> Iterator[None]:
    """Loggers used after `configure_logging` would keep its processors: later tests read no line of them."""
    configure = structlog.configure
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            structlog, "configure", lambda **given: configure(**given | {"cache_logger_on_first_use": False})
        )
        yield


@pytest.fixture(scope="session")
def kafka() -> Iterator[KafkaServer]:
    """A Kafka-protocol broker for the whole session; see `tests.servers` for which."""
    with kafka_server() as server:
        yield server


@pytest.fixture
def transactions(kafka: KafkaServer) -> Iterator[None]:
    """Lets this process open transactional producers on whatever broker the tests use."""
    with contextlib.nullcontext() if kafka.is_apache else newer_init():
        yield


@pytest.fixture(scope="session")
def redis_url() -> Iterator[str]:
    """URL of a Redis-protocol server for the whole session."""
    with redis_server() as url:
        yield url


@pytest.fixture
def topics(kafka: KafkaServer) -> Topics:
    """Makes topics of unique names: ``await topics.make("raw", partitions=3)``."""
    return Topics(kafka)


@pytest.fixture
def redis_prefix(redis_url: str) -> Iterator[str]:
    """A key prefix that no other test uses; its keys are deleted afterwards."""
    prefix = f"test-{uuid.uuid4().hex[:12]}:"
    yield prefix
    with redis.Redis.from_url(redis_url) as client:
        for key in client.scan_iter(match=f"{prefix}*", count=1_000):
            client.delete(key)


@pytest.fixture(autouse=True)
def _needs_apache_kafka(request: pytest.FixtureRequest) -> None:
    """Skip tests marked ``apache_kafka`` where only the embedded broker is there."""
    if request.node.get_closest_marker("apache_kafka") is None:
        return
    server: KafkaServer = request.getfixturevalue("kafka")
    if not server.is_apache:
        pytest.skip(
            "needs a real Apache Kafka: name one in KBERT_TEST_KAFKA, or let Docker answer "
            "(the embedded broker has no real transactions and keeps nothing over a restart)"
        )
