"""The topics that a pipeline writes, looked for before it reads.

A missing dead-letter topic would show at the first bad message, and again at it after each restart.
"""

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError, UnknownTopicOrPartitionError

from worker.settings import KafkaSettings, Settings, topic_setting
from worker.source.reaching import ask, why_unreachable

_SECONDS: Final = 10.0


@dataclass(frozen=True, slots=True)
class Output:
    """A topic that is written, and the setting that names it."""

    topic: str
    setting: str


def outputs_of(settings: Settings, pipeline: str) -> tuple[Output, Output]:
    """Those of a pipeline, with the settings as it sees them."""
    topics = settings.topics
    return (
        Output(topics.signals, topic_setting(pipeline, "signals")),
        Output(topics.dead_letter, "topics.dead_letter"),
    )


async def find(producer: AIOKafkaProducer, kafka: KafkaSettings, outputs: Iterable[Output]) -> None:
    """Ask for the topics' partitions; a broker that makes topics by itself makes them now.

    Raises:
        ConfigurationError: a topic is not there after a short wait, or this user may not see it.
        ConnectionFailedError: no broker answers any more.
    """
    for output in outputs:
        topic, setting = output.topic, output.setting
        try:
            async with asyncio.timeout(_SECONDS):
                await producer.partitions_for(topic)
        except KafkaError as error:
            raise await why_unreachable(kafka, error, topic=topic, setting=setting) from error
        except TimeoutError as error:
            await ask(kafka)
            missing = UnknownTopicOrPartitionError(topic)
            raise await why_unreachable(kafka, missing, topic=topic, setting=setting) from error
