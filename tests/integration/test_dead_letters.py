"""Dead letters are listed, filtered and replayed; a replay carries the id of the first reading."""

from datetime import UTC, datetime, timedelta

from schemas.dead_letters import DeadLetterReason
from tests.fake_model import POISON, FakeEngine
from tests.kafka_io import ids, produce, read_topic
from tests.pipelines import outcomes, pipeline_settings, running_pipeline
from tests.servers import KafkaServer, Topics
from worker.commands.dead_letter import replay_dead_letters
from worker.settings import Settings
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
    assert sorted(ids(signals)) == sorted([f"{raw}:0:0", *[f"{raw}:0:1", "own-id"] * 2])
    replayed = [r for r in await read_topic(kafka.bootstrap_servers, raw) if r.offset >= 4]
    assert all(dict(r.headers)["trace"] == b"t" for r in replayed)
    assert all("kbert.reason" not in dict(r.headers) for r in replayed)


async def test_a_cut_letter_is_not_replayed(kafka: KafkaServer, topics: Topics) -> None:
    settings = await pipeline_settings(kafka, topics, partitions=1)
    await produce(
        kafka.bootstrap_servers,
        settings.topics.dead_letter,
        [b"half of it", b"of another program"],
        headers=[
            ("kbert.reason", b"payload_too_large"),
            ("kbert.detail", b"x"),
            ("kbert.topic", settings.topics.raw.encode()),
            ("kbert.partition", b"0"),
            ("kbert.offset", b"0"),
            ("kbert.timestamp", b"0"),
            ("kbert.failed_at", b"2026-01-01T00:00:00+00:00"),
            ("kbert.original_bytes", b"1000"),
        ],
    )
    assert len(await _read(settings, DeadLetterFilter())) == 2
    assert await replay_dead_letters(settings, DeadLetterFilter()) == 0
