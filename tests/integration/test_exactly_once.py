"""Signals, dead letters and offsets in one transaction per input partition.

Records of an aborted transaction are hidden by Apache Kafka and shown by the embedded broker.
So what has to be seen of an abort is marked ``apache_kafka``; all else runs everywhere.
"""

import asyncio
import json
from collections import Counter
from typing import Any

import pytest
from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.errors import KafkaError

from schemas.dead_letters import DeadLetterReason
from tests.fake_model import POISON, FakeEngine
from tests.kafka_io import committed, exactly_once, headers_of, ids, produce, read_topic
from tests.pipelines import outcomes, pipeline_settings, running_pipeline
from tests.servers import KafkaServer, Topics
from tests.waiting import eventually
from worker.errors import ConfigurationError
from worker.settings import BatchSettings, Settings, SinkSettings, load_settings
from worker.sink.limits import MessageLimits
from worker.sink.record import OutRecord
from worker.sink.transactions import TransactionalSink
from worker.source.committing import Committed
from worker.source.record import Claim, Record

PARTITIONS = 2


async def _settings(kafka: KafkaServer, topics: Topics, **sections: Any) -> Settings:
    sections.setdefault("sink", SinkSettings(request_timeout=10.0))
    return exactly_once(await pipeline_settings(kafka, topics, PARTITIONS, **sections))


def _value(number: int) -> bytes:
    if number % 97 == 0:
        return b"\xff not text %d" % number
    if number % 211 == 0:
        return json.dumps({"id": f"m{number}", "text": f"{POISON} {number}"}).encode()
    return json.dumps({"id": f"m{number}", "text": f"비트 {number} " + "가 " * (number % 40)}).encode()


async def _seen(kafka: KafkaServer, settings: Settings) -> Counter[str]:
    """How often each raw record has a signal or a dead letter."""
    signals = ids(await read_topic(kafka.bootstrap_servers, settings.topics.signals))
    letters = await read_topic(kafka.bootstrap_servers, settings.topics.dead_letter)
    return Counter(signals) + Counter(_number(letter.value) for letter in letters)


def _number(value: bytes) -> str:
    return f"m{value.rsplit(b' ', 1)[1].decode()}" if value[:1] == b"\xff" else json.loads(value)["id"]


async def _position(kafka: KafkaServer, settings: Settings) -> int:
    offsets = await committed(
        kafka.bootstrap_servers, settings.source.group_id, settings.topics.raw, PARTITIONS
    )
    return sum(offset or 0 for offset in offsets.values())


@pytest.mark.usefixtures("transactions")
async def test_every_message_has_one_outcome_in_order_over_a_change_of_workers(
    kafka: KafkaServer, topics: Topics
) -> None:
    settings = await _settings(kafka, topics, batch=BatchSettings(max_queue_delay=0.2))
    count = 3_000
    values = [_value(n) for n in range(count)]
    await produce(kafka.bootstrap_servers, settings.topics.raw, values, partitions=PARTITIONS)
    engine = FakeEngine(seconds_per_batch=0.01)
    async with running_pipeline(settings, engine) as (pipeline, stop, running):
        await eventually(lambda: pipeline.counts.signals > 300, timeout=40)
        stop.set()
        await running
        done = pipeline.counts.records
    assert 0 < done < count, "the first worker was done: the test shows nothing"
    assert await _position(kafka, settings) == done
    assert sum((await _seen(kafka, settings)).values()) == done

    async with running_pipeline(settings, FakeEngine()) as (pipeline, _, running):
        await outcomes(pipeline, running, count - done)
    assert await _position(kafka, settings) == count
    assert await _seen(kafka, settings) == Counter(f"m{n}" for n in range(count))
    written = await read_topic(kafka.bootstrap_servers, settings.topics.signals)
    for out in range(PARTITIONS):
        for raw in range(PARTITIONS):
            numbers = [int(i[1:]) for i in ids([r for r in written if r.partition == out])]
            mine = [n for n in numbers if n % PARTITIONS == raw]
            assert mine == sorted(mine)


@pytest.mark.usefixtures("transactions")
async def test_a_transaction_that_fails_is_read_again_from_the_committed_offset(
    kafka: KafkaServer, topics: Topics, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = await _settings(kafka, topics)
    failed: list[int] = []
    send_offsets = AIOKafkaProducer.send_offsets_to_transaction

    async def fails_at_times(self: AIOKafkaProducer, offsets: Any, group: str) -> None:
        failed.append(1)
        if len(failed) in (2, 3):  # before any record is written, so that every broker shows the same
            raise KafkaError("the coordinator is lost")
        await send_offsets(self, offsets, group)

    monkeypatch.setattr(AIOKafkaProducer, "send_offsets_to_transaction", fails_at_times)
    count = 2_000
    values = [_value(n) for n in range(count)]
    await produce(kafka.bootstrap_servers, settings.topics.raw, values, partitions=PARTITIONS)
    async with running_pipeline(settings, FakeEngine()) as (_, _, running):

        async def complete() -> bool:
            if running.done():
                running.result()
            return await _position(kafka, settings) == count

        await eventually(complete, timeout=60, interval=0.2)
    assert len(failed) > 3
    assert await _seen(kafka, settings) == Counter(f"m{n}" for n in range(count))


@pytest.mark.apache_kafka
async def test_a_transaction_that_fails_after_its_records_leaves_none_of_them(
    kafka: KafkaServer, topics: Topics, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = await _settings(kafka, topics)
    failed: list[int] = []
    commit = AIOKafkaProducer.commit_transaction

    async def fails_once(self: AIOKafkaProducer) -> None:
        failed.append(1)
        if len(failed) == 2:
            raise KafkaError("the coordinator is lost")
        await commit(self)

    monkeypatch.setattr(AIOKafkaProducer, "commit_transaction", fails_once)
    count = 2_000
    values = [_value(n) for n in range(count)]
    await produce(kafka.bootstrap_servers, settings.topics.raw, values, partitions=PARTITIONS)
    async with running_pipeline(settings, FakeEngine()):

        async def complete() -> bool:
            return await _position(kafka, settings) == count

        await eventually(complete, timeout=60, interval=0.2)
    assert len(failed) > 2
    assert await _seen(kafka, settings) == Counter(f"m{n}" for n in range(count))


@pytest.mark.usefixtures("transactions")
async def test_after_a_claim_the_former_owner_commits_nothing(kafka: KafkaServer, topics: Topics) -> None:
    settings = await _settings(kafka, topics, sink=SinkSettings(request_timeout=5.0))
    partition = TopicPartition(settings.topics.raw, 0)
    await produce(kafka.bootstrap_servers, settings.topics.raw, [b"x"] * 10, partitions=1)
    first, second = TransactionalSink(settings), TransactionalSink(settings)
    try:
        await first.start()
        await second.start()
        await first.claim([partition])
        assert await _outcome_of(first, settings, partition, 0) is Committed.DONE

        await second.claim([partition])
        # Apache Kafka names the reason; the embedded broker cuts the connection, and time runs out.
        reason = Committed.FENCED if kafka.is_apache else Committed.FAILED
        assert await _outcome_of(first, settings, partition, 1) is reason
        assert await _position(kafka, settings) == 1
        assert await _outcome_of(second, settings, partition, 1) is Committed.DONE
        assert await _position(kafka, settings) == 2
    finally:
        await first.stop()
        await second.stop()
    if kafka.is_apache:
        written = await read_topic(kafka.bootstrap_servers, settings.topics.signals)
        assert len(written) == 2


async def _outcome_of(
    sink: TransactionalSink, settings: Settings, partition: TopicPartition, offset: int
) -> Committed:
    record = Record(Claim(partition), offset, 0, None, b"x", ())
    await sink.send([OutRecord(settings.topics.signals, b"k", b"%d" % offset)], [record])
    return (await sink.commit({partition: offset + 1}))[partition]


@pytest.mark.usefixtures("transactions")
async def test_what_is_kept_for_a_partition_goes_with_it(kafka: KafkaServer, topics: Topics) -> None:
    settings = await _settings(kafka, topics)
    partition = TopicPartition(settings.topics.raw, 0)
    sink = TransactionalSink(settings)
    try:
        await sink.start()
        await sink.claim([partition])
        gone = Record(Claim(partition), 3, 0, None, b"x", ())
        await sink.send([OutRecord(settings.topics.signals, b"k", b"3")], [gone])
        await sink.release([partition])
        gone.claim.active = False
        await sink.claim([partition])
        await sink.send([OutRecord(settings.topics.signals, b"k", b"late")], [gone])
        assert await sink.commit({partition: 4}) == {partition: Committed.DONE}
    finally:
        await sink.stop()
    assert await read_topic(kafka.bootstrap_servers, settings.topics.signals) == []


@pytest.mark.usefixtures("transactions")
async def test_what_is_finished_behind_an_unfinished_offset_waits_for_it(
    kafka: KafkaServer, topics: Topics
) -> None:
    settings = await _settings(kafka, topics)
    partition = TopicPartition(settings.topics.raw, 0)
    sink = TransactionalSink(settings)
    try:
        await sink.start()
        await sink.claim([partition])
        claim = Claim(partition)
        for offset in (2, 0):
            record = Record(claim, offset, 0, None, b"x", ())
            await sink.send([OutRecord(settings.topics.signals, b"k", b"%d" % offset)], [record])
        await sink.commit({partition: 1})  # offset 1 is still in the engine, and the worker dies
    finally:
        await sink.stop()
    written = await read_topic(kafka.bootstrap_servers, settings.topics.signals)
    assert [record.value for record in written] == [b"0"]


@pytest.mark.usefixtures("transactions")
async def test_a_commit_is_due_when_many_bytes_are_kept(kafka: KafkaServer, topics: Topics) -> None:
    waits = SinkSettings(transaction_interval=3_600, transaction_bytes=100_000)
    settings = await _settings(kafka, topics, sink=waits)
    partition = TopicPartition(settings.topics.raw, 0)
    sink = TransactionalSink(settings)
    try:
        await sink.start()
        await sink.claim([partition])
        claim = Claim(partition)

        async def keep(offset: int) -> None:
            record = Record(claim, offset, 0, None, b"x", ())
            await sink.send([OutRecord(settings.topics.signals, b"k", b"x" * 40_000)], [record])

        due = asyncio.create_task(sink.due())
        for offset in (0, 1, 1):  # the second outcome of offset 1 takes the place of the first
            await keep(offset)
        _, waiting = await asyncio.wait([due], timeout=0.05)
        assert waiting
        await keep(2)
        await asyncio.wait_for(due, 10)
        assert await sink.commit({partition: 3}) == {partition: Committed.DONE}

        due = asyncio.create_task(sink.due())
        await keep(3)
        _, waiting = await asyncio.wait([due], timeout=0.05)
        assert waiting, "what is committed still counts"
        due.cancel()
    finally:
        await sink.stop()


@pytest.mark.usefixtures("transactions")
async def test_a_signal_above_the_topics_limit_is_a_dead_letter_and_the_rest_goes_on(
    kafka: KafkaServer, topics: Topics, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = await _settings(kafka, topics)

    async def limit(_: MessageLimits, topic: str) -> int:
        return 6_000 if topic == settings.topics.signals else 1_048_588

    monkeypatch.setattr(MessageLimits, "_ask", limit)
    values = [json.dumps({"id": f"m{n}", "text": "비트"}).encode() for n in range(20)]
    values[7] = json.dumps({"id": "m7", "text": "비트", "url": "https://e.org/" + "x" * 6_000}).encode()
    values[9] = json.dumps({"id": "m9", "source": "s" * 6_000, "text": "비트"}).encode()
    await produce(kafka.bootstrap_servers, settings.topics.raw, values, partitions=1)
    async with running_pipeline(settings, FakeEngine()) as (pipeline, _, running):
        await outcomes(pipeline, running, 20)
    assert await _position(kafka, settings) == 20
    assert await _seen(kafka, settings) == Counter(f"m{n}" for n in range(20))
    for letter in await read_topic(kafka.bootstrap_servers, settings.topics.dead_letter):
        assert headers_of(letter)["kbert.reason"] in (
            DeadLetterReason.SIGNAL_REJECTED,
            DeadLetterReason.INVALID_MESSAGE,
        )


async def test_a_broker_without_transactions_is_one_sentence_at_start(
    kafka: KafkaServer, topics: Topics
) -> None:
    if kafka.is_apache:
        pytest.skip("this broker has transactions")
    sink = TransactionalSink(await _settings(kafka, topics))
    with pytest.raises(ConfigurationError, match=r"has no transactions .* set delivery=at_least_once"):
        await sink.start()


def test_exactly_once_without_an_idempotent_producer_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"delivery=exactly_once needs kafka\.idempotent_producer"):
        load_settings(_env_file=None, delivery="exactly_once", kafka={"idempotent_producer": False})
