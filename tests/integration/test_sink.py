"""Records out: order, keys, dead letters with original bytes, what the broker refuses."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.producer.message_accumulator import BatchBuilder

from schemas.dead_letters import DeadLetterHeaders, DeadLetterReason
from tests.kafka_io import headers_of, read_topic
from tests.newer_init import newer_init
from tests.servers import KafkaServer, Topics
from worker.embedded import EmbeddedKafka
from worker.errors import ConnectionFailedError
from worker.settings import KafkaSettings, SinkSettings
from worker.sink.dead_letters import dead_letter, smaller
from worker.sink.limits import MessageLimits
from worker.sink.producer import Header, KafkaSink, OutRecord


async def _sink(kafka: KafkaServer, settings: SinkSettings | None = None) -> KafkaSink:
    sink = KafkaSink(
        KafkaSettings(bootstrap_servers=kafka.bootstrap_servers, idempotent_producer=kafka.idempotence),
        settings or SinkSettings(),
    )
    await sink.start()
    return sink


async def test_order_is_kept_for_each_key_across_calls_and_batches(
    kafka: KafkaServer, topics: Topics
) -> None:
    topic = await topics.make("out", partitions=3)
    sink = await _sink(kafka, SinkSettings(max_batch_bytes=2_000))  # many small batches
    deliveries = []
    for start in range(0, 3_000, 500):
        records = [
            OutRecord(topic, b"coin-%d" % (n % 7), b"%d" % n, [("schema", b"x/1")])
            for n in range(start, start + 500)
        ]
        deliveries.append(await sink.send(records))
    for delivery in deliveries:
        assert await delivery.acknowledged() == []
    await sink.stop()

    written = await read_topic(kafka.bootstrap_servers, topic)
    assert sorted(int(r.value) for r in written) == list(range(3_000))
    places: dict[bytes, set[int]] = {}
    for key in {r.key for r in written}:
        mine = [r for r in written if r.key == key]
        places[key] = {r.partition for r in mine}
        assert [int(r.value) for r in mine] == sorted(int(r.value) for r in mine)
    assert all(len(partitions) == 1 for partitions in places.values())
    assert len({p for partitions in places.values() for p in partitions}) > 1
    assert headers_of(written[0]) == {"schema": "x/1"}


async def test_a_dead_letter_keeps_bytes_key_headers_and_says_where_and_why(
    kafka: KafkaServer, topics: Topics
) -> None:
    topic = await topics.make("dead")
    original = b"\xff\xfe\x00 not text"
    letter = dead_letter(
        topic,
        place=("raw.crypto", 3, 42),
        timestamp_ms=1_700_000_000_000,
        key=b"\x00key",
        value=original,
        headers=[("trace", b"abc"), ("kbert.reason", b"stale: replayed once")],
        reason=DeadLetterReason.NOT_UTF8,
        detail="not UTF-8 at byte 0",
    )
    empty = dead_letter(
        topic,
        place=("raw.crypto", 0, 0),
        timestamp_ms=0,
        key=None,
        value=None,
        headers=[],
        reason=DeadLetterReason.EMPTY_PAYLOAD,
        detail="the record has no value",
    )
    sink = await _sink(kafka)
    assert await (await sink.send([letter, empty])).acknowledged() == []
    await sink.stop()

    record, tombstone = await read_topic(kafka.bootstrap_servers, topic)
    assert record.value == original
    assert record.key == b"\x00key"
    headers = headers_of(record)
    assert headers["trace"] == "abc"
    about = DeadLetterHeaders.model_validate(headers)
    assert (about.topic, about.partition, about.offset) == ("raw.crypto", 3, 42)
    assert about.reason is DeadLetterReason.NOT_UTF8
    assert [name for name, _ in record.headers].count("kbert.reason") == 1
    assert tombstone.value == b""


def test_a_dead_letter_that_is_too_large_loses_what_is_longest_in_it_and_says_so() -> None:
    ours: Header = ("kbert.reason", b"r")
    letter: OutRecord | None = OutRecord("dead", b"k" * 30, b"x" * 100, [ours, ("theirs", b"h" * 40)])
    left = []
    while letter is not None and (letter := smaller(letter)) is not None:
        headers = dict(letter.headers)
        assert headers.pop("kbert.reason") == b"r"
        assert headers.pop("kbert.original_bytes") == b"100"
        left.append((len(letter.value), "theirs" in headers, letter.key is not None))
    assert left[:4] == [(50, True, True), (25, True, True), (25, False, True), (25, False, False)]
    assert left[-1] == (0, False, False)


async def test_a_record_above_the_topics_limit_is_reported_and_no_batch_is_above_it(
    kafka: KafkaServer, topics: Topics, monkeypatch: pytest.MonkeyPatch
) -> None:
    topic = await topics.make("small")

    async def limit(_: MessageLimits, asked: str) -> int:
        assert asked == topic
        return 10_000

    monkeypatch.setattr(MessageLimits, "_ask", limit)
    largest = 0
    send_batch = AIOKafkaProducer.send_batch

    async def weighed(self: AIOKafkaProducer, batch: BatchBuilder, *place: str, partition: int) -> object:
        nonlocal largest
        largest = max(largest, batch.size())
        return await send_batch(self, batch, *place, partition=partition)

    monkeypatch.setattr(AIOKafkaProducer, "send_batch", weighed)
    sink = await _sink(kafka)
    values = [b"a" * 1_000] * 12 + [b"b" * 20_000] + [b"c" * 1_000] * 3
    delivery = await sink.send([OutRecord(topic, None, value) for value in values])
    assert await delivery.acknowledged() == [12]
    await sink.stop()
    assert len(await read_topic(kafka.bootstrap_servers, topic)) == 15
    assert 5_000 < largest <= 10_000


@pytest.mark.apache_kafka
async def test_only_the_record_that_the_broker_finds_too_large_is_reported(kafka: KafkaServer) -> None:
    topic = f"small-{id(kafka)}"
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka.bootstrap_servers)
    await admin.start()
    await admin.create_topics([NewTopic(topic, 1, 1, topic_configs={"max.message.bytes": "10000"})])
    await admin.close()
    kafka.made_topics.append(topic)
    sink = await _sink(kafka)
    values = [b"a" * 1_000] * 12 + [b"b" * 20_000] + [b"c" * 1_000] * 3
    delivery = await sink.send([OutRecord(topic, None, value) for value in values])
    assert await delivery.acknowledged() == [12]
    await sink.stop()
    assert len(await read_topic(kafka.bootstrap_servers, topic)) == 15


async def test_no_broker_is_one_sentence_that_names_the_setting() -> None:
    sink = KafkaSink(KafkaSettings(bootstrap_servers="127.0.0.1:1"), SinkSettings())
    with pytest.raises(ConnectionFailedError, match=r"kafka\.bootstrap_servers=127\.0\.0\.1:1"):
        await sink.start()


@pytest.fixture
async def broker() -> AsyncIterator[EmbeddedKafka]:
    """One that a test may freeze and kill, and whose producers may be idempotent."""
    with newer_init():
        async with EmbeddedKafka() as embedded:
            yield embedded


async def _idempotent(broker: EmbeddedKafka) -> tuple[KafkaSink, str]:
    """A sink that has written to the topic."""
    kafka = KafkaServer(broker.bootstrap_servers, is_apache=True)
    topic = await Topics(kafka).make("out")
    sink = await _sink(kafka, SinkSettings(request_timeout=1.0))
    assert await sink.deliver([OutRecord(topic, None, b"first")]) == []
    return sink, topic


async def test_a_delivery_does_not_wait_for_ever_for_brokers_that_are_gone(broker: EmbeddedKafka) -> None:
    sink, topic = await _idempotent(broker)
    try:
        broker.kill()
        with pytest.raises(ConnectionFailedError, match=r"No Kafka broker answers at kafka\.boot"):
            await asyncio.wait_for(sink.deliver([OutRecord(topic, None, b"second")]), 60)
    finally:
        await asyncio.wait_for(sink.stop(), 30)


async def test_a_worker_waits_out_brokers_that_are_silent_for_longer(broker: EmbeddedKafka) -> None:
    sink, topic = await _idempotent(broker)
    try:
        broker.freeze()
        sending = asyncio.create_task(sink.send([OutRecord(topic, None, b"second")]))
        acknowledged = asyncio.create_task((await sending).acknowledged())
        _, waiting = await asyncio.wait([acknowledged], timeout=3.0)  # three times sink.request_timeout
        assert waiting
        broker.thaw()
        assert await asyncio.wait_for(acknowledged, 60) == []
    finally:
        await sink.stop()
    assert [r.value for r in await read_topic(broker.bootstrap_servers, topic)][:2] == [b"first", b"second"]
