"""Which Kafka and Redis the tests use.

In this order: servers named in the environment (``KBERT_TEST_KAFKA``,
``KBERT_TEST_REDIS``), containers where Docker answers, the embedded ones.
"""

import asyncio
import contextlib
import os
import socket
import threading
import urllib.parse
import uuid
import warnings
from collections.abc import Coroutine, Iterator
from dataclasses import dataclass, field
from typing import Any, TypeVar

from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from worker.embedded import EmbeddedKafka, EmbeddedRedis, free_port
from worker.sink.admin import wait_until_ready

KAFKA_IMAGE = "apache/kafka:4.0.2"
REDIS_IMAGE = "redis:7"

T = TypeVar("T")


@dataclass(frozen=True)
class KafkaServer:
    """A broker, and what it can do."""

    bootstrap_servers: str
    is_apache: bool
    """Idempotence, real transactions, retention and restarts: everything that Apache Kafka does."""
    made_topics: list[str] = field(default_factory=list)

    @property
    def idempotence(self) -> bool:
        """Whether producers may set ``enable_idempotence``."""
        return self.is_apache


class Topics:
    """Makes topics of unique names.

    They are deleted when the whole session is over: a topic that a client still
    uses comes back as soon as it is deleted.
    """

    def __init__(self, kafka: KafkaServer) -> None:
        self._kafka = kafka

    async def make(self, name: str = "topic", partitions: int = 1) -> str:
        """A new topic named ``<name>-<unique>`` with that many partitions."""
        topic = f"{name}-{uuid.uuid4().hex[:12]}"
        admin = AIOKafkaAdminClient(bootstrap_servers=self._kafka.bootstrap_servers)
        await admin.start()
        try:
            await admin.create_topics([NewTopic(topic, partitions, 1)])
        finally:
            await admin.close()
        self._kafka.made_topics.append(topic)
        return topic


@contextlib.contextmanager
def kafka_server() -> Iterator[KafkaServer]:
    """The broker that the tests use, for as long as the context lasts."""
    if named := os.environ.get("KBERT_TEST_KAFKA"):
        run_elsewhere(wait_until_ready(named, 30.0))
        server = KafkaServer(named, is_apache=True)
        try:
            yield server
        finally:
            run_elsewhere(_delete_topics(server))
        return
    with contextlib.ExitStack() as stack:
        if docker_answers():
            try:
                bootstrap_servers = stack.enter_context(_kafka_container())
            except Exception as error:  # noqa: BLE001 - Docker without the image or a network is no failure of ours
                warnings.warn(f"Docker answers, but {KAFKA_IMAGE} does not run: {error}", stacklevel=2)
            else:
                yield KafkaServer(bootstrap_servers, is_apache=True)
                return
        embedded = EmbeddedKafka()
        run_elsewhere(embedded.start())
        stack.callback(lambda: run_elsewhere(embedded.stop()))
        yield KafkaServer(embedded.bootstrap_servers, is_apache=False)


async def _delete_topics(server: KafkaServer) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=server.bootstrap_servers)
    await admin.start()
    try:
        await admin.delete_topics(server.made_topics)
    finally:
        await admin.close()


@contextlib.contextmanager
def redis_server() -> Iterator[str]:
    """URL of the Redis that the tests use, for as long as the context lasts."""
    if named := os.environ.get("KBERT_TEST_REDIS"):
        yield named
        return
    with contextlib.ExitStack() as stack:
        if docker_answers():
            try:
                url = stack.enter_context(_redis_container())
            except Exception as error:  # noqa: BLE001 - as for Kafka
                warnings.warn(f"Docker answers, but {REDIS_IMAGE} does not run: {error}", stacklevel=2)
            else:
                yield url
                return
        embedded = EmbeddedRedis()
        run_elsewhere(embedded.start())
        stack.callback(lambda: run_elsewhere(embedded.stop()))
        yield embedded.url


def docker_answers() -> bool:
    """Whether a Docker daemon answers within a second."""
    host = urllib.parse.urlsplit(os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock"))
    try:
        if host.scheme == "unix":
            connection = socket.socket(socket.AF_UNIX)
            connection.settimeout(1.0)
            connection.connect(host.path)
        else:
            connection = socket.create_connection((host.hostname or "", host.port or 2375), timeout=1.0)
        with connection:
            connection.settimeout(1.0)
            connection.sendall(b"GET /_ping HTTP/1.0\r\nHost: docker\r\n\r\n")
            return b" 200 " in connection.recv(64)
    except OSError:
        return False


@contextlib.contextmanager
def _kafka_container() -> Iterator[str]:
    """Apache Kafka on a fixed host port: the broker advertises its address, so it has to know the port."""
    from testcontainers.core.container import DockerContainer

    port = free_port()
    container = DockerContainer(KAFKA_IMAGE).with_bind_ports(9092, port)
    host = container.get_container_host_ip()
    settings = {
        "KAFKA_NODE_ID": "1",
        "KAFKA_PROCESS_ROLES": "broker,controller",
        "KAFKA_LISTENERS": "PLAINTEXT://:9092,CONTROLLER://:9093",
        "KAFKA_ADVERTISED_LISTENERS": f"PLAINTEXT://{host}:{port}",
        "KAFKA_CONTROLLER_LISTENER_NAMES": "CONTROLLER",
        "KAFKA_LISTENER_SECURITY_PROTOCOL_MAP": "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT",
        "KAFKA_CONTROLLER_QUORUM_VOTERS": "1@localhost:9093",
        "KAFKA_OFFSETS_TOPIC_REPLICATION_FACTOR": "1",
        "KAFKA_TRANSACTION_STATE_LOG_REPLICATION_FACTOR": "1",
        "KAFKA_TRANSACTION_STATE_LOG_MIN_ISR": "1",
        "KAFKA_GROUP_INITIAL_REBALANCE_DELAY_MS": "0",
    }
    for name, value in settings.items():
        container = container.with_env(name, value)
    with container:
        run_elsewhere(wait_until_ready(f"{host}:{port}", 60.0))
        yield f"{host}:{port}"


@contextlib.contextmanager
def _redis_container() -> Iterator[str]:
    from testcontainers.community.redis import RedisContainer

    with RedisContainer(REDIS_IMAGE) as container:
        yield f"redis://{container.get_container_host_ip()}:{container.get_exposed_port(6379)}/0"


def run_elsewhere(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine to its end on a loop of its own, whatever loop the caller's thread has."""
    results: list[T] = []
    errors: list[BaseException] = []

    def target() -> None:
        try:
            results.append(asyncio.run(work))
        except BaseException as error:  # noqa: BLE001 - handed to the caller below
            errors.append(error)

    thread = threading.Thread(target=target)
    thread.start()
    thread.join()
    if errors:
        raise errors[0]
    return results[0]
