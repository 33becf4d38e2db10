"""Dead letters are listed, filtered and replayed; a replay carries the id of the first reading."""

import asyncio
import json
from datetime import UTC, datetime, timedelta

import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition

from schemas.dead_letters import DeadLetterReason
from tests.fake_model import POISON, FakeEngine
from tests.kafka_io import ids, produce, read_topic
from tests.pipelines import outcomes, pipeline_settings, running_pipeline
from tests.servers import KafkaServer, Topics
from worker.commands.dead_letter import replay_dead_letters
from worker.embedded import EmbeddedKafka
from worker.errors import ConnectionFailedError, KbertError
from worker.settings import Settings
from worker.sink.limits import MessageLimits
from worker.source import reading
from worker.source.dead_letters import DeadLetter, DeadLetterFilter, read_dead_letters


async def _read(settings: Settings, wanted: DeadLetterFilter) -> list[DeadLetter]:
    return [letter async for letter in read_dead_letters(settings.topics.dead_letter, settings.kafka, wanted)]


async def test_filters_and_replay(kafka: KafkaServer, topics: Topics) -> None:
    settings = await pipeline_settings(kafka, topics, partitions=1)
    raw = settings.topics.raw
    named = f'{{"id": "own-id", "text": "{POISON}"}}'.encode()
    await produce(
        kafka.bootstrap_servers, raw, [b"fine", POISON.encode(), b"\xff", named], headers=[("trace", b"t")]
    )
    async with running_pipeline(settings, FakeEngine()) as (pipeline, _, running):
        await outcomes(pipeline, running, 4)

    everything = await _read(settings, DeadLetterFilter())
    assert sorted(letter.about.offset for letter in everything) == [1, 2, 3]
    failed = DeadLetterFilter(reasons={DeadLetterReason.INFERENCE_FAILED})
    assert {letter.value for letter in await _read(settings, failed)} == {POISON.encode(), named}
    now = datetime.now(UTC)
    assert await _read(settings, DeadLetterFilter(since=now + timedelta(hours=1))) == []
    assert await _read(settings, DeadLetterFilter(until=now - timedelta(hours=1))) == []
    place = everything[0].place
    assert [letter.place for letter in await _read(settings, DeadLetterFilter(places=[place]))] == [place]

    # The mend: an engine that can do it. Twice, by mistake.
    assert await replay_dead_letters(settings, failed) == 2
    assert await replay_dead_letters(settings, failed) == 2
    engine = FakeEngine(immune=True)
    async with running_pipeline(settings, engine) as (pipeline, _, running):
        await outcomes(pipeline, running, 4)
    signals = await read_topic(kafka.bootstrap_servers, settings.topics.signals)
    fine, poison, _, _, *replayed = await read_topic(kafka.bootstrap_servers, raw)
    made_up = [f"{raw}:0:{one.offset}:{one.timestamp}" for one in (fine, poison)]
    assert sorted(ids(signals)) == sorted([made_up[0], *[made_up[1], "own-id"] * 2])
    times = {one["id"]: one["published_at"] for one in map(json.loads, (r.value for r in signals))}
    assert datetime.fromisoformat(times[made_up[1]]) == datetime.fromtimestamp(poison.timestamp / 1000, UTC)
    assert all(dict(r.headers)["trace"] == b"t" for r in replayed)
    assert all("kbert.reason" not in dict(r.headers) for r in replayed)


async def _letters(settings: Settings, *values: bytes, **more: bytes) -> None:
    headers = [
        ("kbert.reason", b"payload_too_large"),
        ("kbert.detail", b"x"),
        ("kbert.topic", settings.topics.raw.encode()),
        ("kbert.partition", b"0"),
        ("kbert.offset", b"7"),
        ("kbert.timestamp", b"0"),
        ("kbert.failed_at", b"2026-01-01T00:00:00+00:00"),
        *((f"kbert.{name}", value) for name, value in more.items()),
    ]
    await produce(settings.kafka.bootstrap_servers, settings.topics.dead_letter, values, headers=headers)


async def test_what_cannot_be_replayed_is_named_and_counted_and_blocks_nothing(
    kafka: KafkaServer, topics: Topics, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = await pipeline_settings(kafka, topics, partitions=1)

    async def limit(_: MessageLimits, topic: str) -> int:
        return 6_000 if topic == settings.topics.raw else 1_048_588

    monkeypatch.setattr(MessageLimits, "_ask", limit)
    await _letters(settings, b"before", b"x" * 10_000, b"after")
    await _letters(settings, b"half of it", original_bytes=b"1000")
    await _letters(settings, b"last")
    assert len(await _read(settings, DeadLetterFilter())) == 5
    with pytest.raises(KbertError, match=r"^3 replayed, 2 left out \(1: .* cut, .*; 1: too large .*\)\.$"):
        await replay_dead_letters(settings, DeadLetterFilter())
    said = capsys.readouterr().err
    raw = settings.topics.raw
    assert f"left out 0:1, from {raw}:0:7: too large for its topic" in said
    assert f"left out 0:3, from {raw}:0:7: it was cut" in said
    assert [r.value for r in await read_topic(kafka.bootstrap_servers, raw)] == [b"before", b"after", b"last"]


async def test_reading_ends_when_the_brokers_are_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    async with EmbeddedKafka() as embedded:
        kafka = KafkaServer(embedded.bootstrap_servers, is_apache=False)
        settings = await pipeline_settings(kafka, Topics(kafka), partitions=1)
        await _letters(settings, b"a letter")
        end_offsets = AIOKafkaConsumer.end_offsets

        async def with_one_more_to_come(
            self: AIOKafkaConsumer, partitions: list[TopicPartition]
        ) -> dict[TopicPartition, int]:
            return {tp: end + 1 for tp, end in (await end_offsets(self, partitions)).items()}

        beginning_offsets = AIOKafkaConsumer.beginning_offsets

        async def and_then_it_dies(
            self: AIOKafkaConsumer, partitions: list[TopicPartition]
        ) -> dict[TopicPartition, int]:
            offsets: dict[TopicPartition, int] = await beginning_offsets(self, partitions)
            embedded.kill()
            return offsets

        monkeypatch.setattr(AIOKafkaConsumer, "end_offsets", with_one_more_to_come)
        monkeypatch.setattr(AIOKafkaConsumer, "beginning_offsets", and_then_it_dies)
        monkeypatch.setattr(reading, "_SILENT_POLLS", 2)
        with pytest.raises(ConnectionFailedError, match=r"No Kafka broker answers"):
            await asyncio.wait_for(_read(settings, DeadLetterFilter()), 60)
