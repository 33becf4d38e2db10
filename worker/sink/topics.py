"""Making and describing the topics."""

import asyncio
import re
import time
from dataclasses import dataclass
from typing import Final

from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import KafkaError, TopicAlreadyExistsError, for_code

from worker.errors import ConfigurationError, ConnectionFailedError
from worker.settings import Settings
from worker.source.reaching import why_unreachable

_KNOWN_SECONDS: Final = 10.0
_DAY_MS: Final = 24 * 3600 * 1000
_TOPIC_CONFIG: Final[dict[str, dict[str, str]]] = {
    "raw": {"retention.ms": str(7 * _DAY_MS)},
    # The 7d window can be rebuilt from this topic, with a day to spare.
    "signals": {"retention.ms": str(8 * _DAY_MS)},
    "raw_traffic": {"retention.ms": str(7 * _DAY_MS)},
    # The monthly index is counted once and kept in Redis; a year lets a lost one be rebuilt that far.
    "signals_traffic": {"retention.ms": str(365 * _DAY_MS)},
    # A dead letter is its original and up to 1 KB of headers: let the largest original in.
    "dead_letter": {"retention.ms": str(30 * _DAY_MS), "max.message.bytes": str(2 * 1024 * 1024)},
}


@dataclass(frozen=True)
class TopicState:
    """One topic as the broker sees it."""

    name: str
    exists: bool
    partitions: int
    replicas: int


def topic_names(settings: Settings) -> dict[str, str]:
    """Role to name."""
    return {
        "raw": settings.topics.raw,
        "signals": settings.topics.signals,
        "raw_traffic": settings.traffic.raw,
        "signals_traffic": settings.traffic.signals,
        "dead_letter": settings.topics.dead_letter,
    }


async def create_topics(settings: Settings) -> list[str]:
    """Make the topics that are not there, and return their names.

    Raises:
        ConfigurationError: the broker refuses; the message says what it answered.
        ConnectionFailedError: no broker answers, or it does not show what was made.
    """
    admin = await _connect(settings)
    try:
        created: list[str] = []
        for role, name in topic_names(settings).items():
            _check_name(name)
            topic = NewTopic(
                name,
                num_partitions=settings.topics.partitions,
                replication_factor=settings.topics.replication_factor,
                topic_configs=_TOPIC_CONFIG[role],
            )
            response = await admin.create_topics([topic])
            for _, code, *message in response.topic_errors:
                error = for_code(code)
                if code == 0:
                    created.append(name)
                elif error is not TopicAlreadyExistsError:
                    answer = " ".join([error.__name__, *(m for m in message if m)])
                    raise ConfigurationError(f"Kafka refuses to create the topic {name}: {answer}.")
        await _until_known(admin, created)
        return created
    finally:
        await admin.close()


async def delete_topics(settings: Settings) -> None:
    """Delete the topics that the settings name, with all that is in them.

    Raises:
        ConnectionFailedError: no broker answers.
    """
    admin = await _connect(settings)
    try:
        await admin.delete_topics(await _existing(admin, settings))
    finally:
        await admin.close()


async def _until_known(admin: AIOKafkaAdminClient, names: list[str]) -> None:
    """Wait until the broker that answers has heard of them: in Apache Kafka its controller makes topics."""
    deadline = time.monotonic() + _KNOWN_SECONDS
    while names:
        described = await admin.describe_topics(names)
        names = [topic["topic"] for topic in described if topic["error_code"] or not topic["partitions"]]
        if names and time.monotonic() > deadline:
            raise ConnectionFailedError(
                f"Kafka made {', '.join(names)}, and {_KNOWN_SECONDS:g} s later its broker knows none: "
                "look at its logs."
            )
        await asyncio.sleep(0.02 if names else 0)


async def describe_topics(settings: Settings) -> list[TopicState]:
    """State of each topic that the settings name."""
    admin = await _connect(settings)
    try:
        names = await _existing(admin, settings)
        described = {t["topic"]: t for t in (await admin.describe_topics(names) if names else [])}
        return [_state(name, described.get(name)) for name in topic_names(settings).values()]
    finally:
        await admin.close()


async def _existing(admin: AIOKafkaAdminClient, settings: Settings) -> list[str]:
    known = set(await admin.list_topics())
    return [name for name in topic_names(settings).values() if name in known]


def _state(name: str, description: dict[str, list[dict[str, list[int]]]] | None) -> TopicState:
    if description is None:
        return TopicState(name, False, 0, 0)
    partitions = description["partitions"]
    replicas = min((len(p["replicas"]) for p in partitions), default=0)
    return TopicState(name, True, len(partitions), replicas)


def _check_name(name: str) -> None:
    if not re.fullmatch(r"[A-Za-z0-9._-]{1,249}", name):
        raise ConfigurationError(
            f"The topic name {name!r} is not one that Kafka takes: letters, digits, '.', '_' and '-' only."
        )


async def _connect(settings: Settings) -> AIOKafkaAdminClient:
    admin = AIOKafkaAdminClient(**settings.kafka.client_options())
    try:
        await admin.start()
    except KafkaError as error:
        await admin.close()
        raise await why_unreachable(settings.kafka, error) from error
    return admin
