"""A topic that is not there, or goes, is one sentence that names it, its setting and the mend."""

import asyncio
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.protocol.metadata import MetadataRequest

from tests.fake_model import FakeEngine
from tests.kafka_io import exactly_once, produce
from tests.pipelines import outcomes, pipeline_settings, running_pipeline
from tests.servers import KafkaServer, Topics
from tests.waiting import eventually
from worker.app import connected, run_services
from worker.clients import SignalStream
from worker.errors import ConfigurationError, KbertError
from worker.history.pace import Pace
from worker.history.replay import Replay
from worker.settings import KafkaSettings, Settings, SinkSettings
from worker.sink import outputs
from worker.sink.producer import KafkaSink, OutRecord
from worker.source.consumer import KafkaSource
from worker.source.follower import SignalFollower
from worker.source.reading import read_to_end


@pytest.fixture
def no_auto_topics(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who asks for a topic does not make it, as where a broker has auto.create.topics.enable=false."""
    init = MetadataRequest.__init__

    def without_making(self: MetadataRequest, topics: list[str] | None = None, _: Any = None) -> None:
        init(self, topics, False)

    monkeypatch.setattr(MetadataRequest, "__init__", without_making)
    monkeypatch.setattr(outputs, "_SECONDS", 1.0)


def _with_topics(settings: Settings, **names: str) -> Settings:
    return settings.model_copy(update={"topics": settings.topics.model_copy(update=names)})


async def _delete(settings: Settings, topic: str) -> None:
    admin = AIOKafkaAdminClient(**settings.kafka.client_options())
    await admin.start()
    try:
        await admin.delete_topics([topic])
    finally:
        await admin.close()


@pytest.mark.usefixtures("no_auto_topics", "transactions")
@pytest.mark.parametrize("delivery", ["at_least_once", "exactly_once"])
@pytest.mark.parametrize("role", ["signals", "dead_letter"])
async def test_an_output_that_is_not_there_ends_the_start(
    kafka: KafkaServer, topics: Topics, delivery: str, role: str
) -> None:
    settings = _with_topics(await pipeline_settings(kafka, topics, partitions=1), **{role: f"no-{role}"})
    if delivery == "exactly_once":
        settings = exactly_once(settings)
    with pytest.raises(ConfigurationError) as refused:
        async with connected(settings):
            pass
    assert str(refused.value) == (
        f"There is no topic no-{role}: correct topics.{role} or run kbert topics --create."
    )


async def test_a_broker_that_makes_topics_makes_them_at_the_start(kafka: KafkaServer, topics: Topics) -> None:
    if kafka.is_apache:
        pytest.skip("whether it does is a setting of its own")
    made = f"made-{(await topics.make('dead'))}"
    kafka.made_topics.append(made)
    settings = _with_topics(await pipeline_settings(kafka, topics, partitions=1), dead_letter=made)
    async with connected(settings):
        pass
    admin = AIOKafkaAdminClient(**settings.kafka.client_options())
    await admin.start()
    assert made in await admin.list_topics()
    await admin.close()


@pytest.mark.usefixtures("no_auto_topics")
async def test_a_topic_to_read_that_is_not_there(
    kafka: KafkaServer, topics: Topics, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = await pipeline_settings(kafka, topics, partitions=1)
    raw = KafkaSource("no-raw", settings.kafka, settings.source, pipeline="traffic")

    async def from_nowhere(_: object) -> dict[Any, Any]:
        return {}

    signals = SignalFollower(
        "no-signals", settings.kafka, settings.aggregates, on_assigned=from_nowhere, on_revoked=print
    )
    readers: dict[str, KafkaSource | SignalFollower]
    readers = {"no-raw: correct traffic.raw": raw, "no-signals: correct topics.signals": signals}
    for sentence, reader in readers.items():
        monkeypatch.setattr(reader._consumer._client, "_request_timeout_ms", 500)
        with pytest.raises(ConfigurationError, match=f"There is no topic {sentence} or run kbert topics"):
            await reader.start()

    start = AIOKafkaConsumer.start

    async def start_sooner(self: AIOKafkaConsumer) -> None:
        self._client._request_timeout_ms = 500
        await start(self)

    monkeypatch.setattr(AIOKafkaConsumer, "start", start_sooner)
    with pytest.raises(ConfigurationError, match=r"no topic no-dead: correct topics\.dead_letter or run"):
        async for _ in read_to_end("no-dead", settings.kafka, setting="topics.dead_letter"):
            pass


@pytest.mark.usefixtures("no_auto_topics")
async def test_a_topic_that_goes_later_ends_the_worker_with_one_sentence(
    kafka: KafkaServer, topics: Topics, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = await pipeline_settings(kafka, topics, partitions=1, sink=SinkSettings(request_timeout=2.0))
    dead = settings.topics.dead_letter

    async def until_a_bad_message(_: Settings, __: asyncio.Event) -> None:
        async with running_pipeline(settings, FakeEngine()) as (pipeline, _stop, running):
            await produce(kafka.bootstrap_servers, settings.topics.raw, [b"fine", b"\xff"])
            await outcomes(pipeline, running, 2)
            await _delete(settings, dead)
            # The embedded broker would take a batch for it all the same.
            client = pipeline._sink._producer.client  # type: ignore[attr-defined]

            async def known_as_gone() -> bool:
                await client.force_metadata_update()
                return client.cluster.partitions_for_topic(dead) is None

            await eventually(known_as_gone)
            await produce(kafka.bootstrap_servers, settings.topics.raw, [b"fine", b"\xff"])
            await asyncio.wait_for(running, 60)

    monkeypatch.setitem(run_services.__globals__["SERVICES"], "worker", until_a_bad_message)
    with pytest.raises(KbertError) as ended:
        await run_services(settings, ["worker"], asyncio.Event())
    assert str(ended.value) == (
        f"There is no topic {dead}: correct topics.dead_letter or run kbert topics --create."
    )


async def test_a_topic_that_comes_back_smaller_is_a_sentence_too(kafka: KafkaServer, topics: Topics) -> None:
    topic = await topics.make("out", 12)
    settings = KafkaSettings(bootstrap_servers=kafka.bootstrap_servers, idempotent_producer=kafka.idempotence)
    sink = KafkaSink(settings, SinkSettings(request_timeout=5.0))
    await sink.start()
    records = [OutRecord(topic, b"%d" % n, b"x") for n in range(100)]
    try:
        assert await sink.deliver(records) == []
        admin = AIOKafkaAdminClient(bootstrap_servers=kafka.bootstrap_servers)
        await admin.start()
        await admin.delete_topics([topic])
        await admin.close()
        await sink._producer.client.force_metadata_update()  # the broker makes it anew, with fewer partitions
        with pytest.raises(KbertError, match=f"does not take what is sent|There is no topic {topic}"):
            await sink.deliver(records)
    finally:
        await sink.stop()


@pytest.mark.usefixtures("no_auto_topics")
async def test_a_topic_of_signals_that_is_not_there_is_named_to_its_readers(kafka: KafkaServer) -> None:
    stream = SignalStream(kafka.bootstrap_servers, topic="nowhere", request_timeout_ms=1_000)
    with pytest.raises(ConfigurationError, match="There is no topic nowhere: correct its setting or run"):
        async with stream:
            pass


@pytest.mark.usefixtures("no_auto_topics")
async def test_a_raw_topic_that_is_not_there_is_named_to_a_replay(
    kafka: KafkaServer, topics: Topics, tmp_path: Path
) -> None:
    settings = _with_topics(await pipeline_settings(kafka, topics, partitions=1), raw="no-raw")
    file = tmp_path / "a.jsonl"
    file.write_text("가즈아\n", encoding="utf-8")
    replay = Replay(settings, file, Pace(), shift=timedelta(0), tell=lambda _line: None)
    with pytest.raises(ConfigurationError, match=r"There is no topic no-raw: correct topics\.raw or run"):
        await replay.run(asyncio.Event())
