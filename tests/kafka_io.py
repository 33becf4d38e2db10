"""Writing and reading whole topics in tests."""

import json
from collections.abc import Sequence
from typing import Any

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRecord, TopicPartition

from worker.settings import KafkaSettings, Settings, SourceSettings, TopicSettings, load_settings


def settings_for(
    bootstrap_servers: str, *, idempotence: bool, raw: str, signals: str, dead_letter: str, **sections: Any
) -> Settings:
    """Settings for topics and a group of their own, with short time-outs."""
    sections.setdefault("source", SourceSettings(group_id=f"workers-{raw}", session_timeout=6.0))
    return load_settings(
        _env_file=None,
        kafka=KafkaSettings(bootstrap_servers=bootstrap_servers, idempotent_producer=idempotence),
        topics=TopicSettings(raw=raw, signals=signals, dead_letter=dead_letter),
        **sections,
    )


def exactly_once(settings: Settings) -> Settings:
    """The same settings in exactly-once mode."""
    return settings.model_copy(
        update={
            "delivery": "exactly_once",
            "kafka": settings.kafka.model_copy(update={"idempotent_producer": True}),
        }
    )


async def produce(
    bootstrap_servers: str,
    topic: str,
    values: Sequence[bytes | None],
    *,
    partitions: int | None = None,
    keys: Sequence[bytes | None] | None = None,
    headers: Sequence[tuple[str, bytes]] = (),
) -> None:
    """Write values, round robin over ``partitions`` where given, and wait for the broker."""
    async with AIOKafkaProducer(bootstrap_servers=bootstrap_servers, max_request_size=4_194_304) as producer:
        futures = [
            await producer.send(
                topic,
                value,
                key=keys[index] if keys else None,
                partition=index % partitions if partitions else None,
                headers=list(headers),
            )
            for index, value in enumerate(values)
        ]
        for future in futures:
            await future


async def read_topic(bootstrap_servers: str, topic: str) -> list[ConsumerRecord]:
    """Every record that the topic holds now, in offset order within each partition.

    The embedded broker may answer ends that are never reached: it is left after two seconds of silence.
    """
    async with AIOKafkaConsumer(
        bootstrap_servers=bootstrap_servers,
        auto_offset_reset="earliest",
        enable_auto_commit=False,
        isolation_level="read_committed",
        fetch_max_wait_ms=50,
    ) as consumer:
        partitions = [TopicPartition(topic, p) for p in sorted(consumer.partitions_for_topic(topic) or ())]
        if not partitions:
            await consumer._client.add_topic(topic)
            partitions = [
                TopicPartition(topic, p) for p in sorted(consumer.partitions_for_topic(topic) or ())
            ]
        consumer.assign(partitions)
        ends = {tp: end for tp, end in (await consumer.end_offsets(partitions)).items() if end > 0}
        for tp in partitions:
            await consumer.seek_to_beginning(tp)
        records: list[ConsumerRecord] = []
        silent = 0
        # The last offset may be a transaction's marker, which no poll returns: the position tells.
        while silent < 10 and any([await consumer.position(tp) < end for tp, end in ends.items()]):
            polled = await consumer.getmany(timeout_ms=200)
            silent = 0 if polled else silent + 1
            for batch in polled.values():
                records.extend(batch)
        return sorted(records, key=lambda record: (record.partition, record.offset))


async def committed(bootstrap_servers: str, group: str, topic: str, partitions: int) -> dict[int, int | None]:
    """Committed offset of each partition."""
    async with AIOKafkaConsumer(
        bootstrap_servers=bootstrap_servers, group_id=group, enable_auto_commit=False
    ) as consumer:
        return {p: await consumer.committed(TopicPartition(topic, p)) for p in range(partitions)}


def ids(records: Sequence[ConsumerRecord]) -> list[str]:
    """Ids of signals, in order."""
    return [json.loads(record.value)["id"] for record in records]


def headers_of(record: ConsumerRecord) -> dict[str, str]:
    """Headers as text."""
    return {name: value.decode() for name, value in record.headers}
