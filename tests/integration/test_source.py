"""The consumer group against a real broker: commits, rebalances, giving up."""

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.protocol.fetch import FetchRequest
from aiokafka.record.util import calc_crc32c

from tests.kafka_io import committed, produce, settings_for
from tests.servers import KafkaServer, Topics
from tests.waiting import eventually
from worker.embedded import EmbeddedKafka
from worker.settings import SourceSettings
from worker.source.consumer import KafkaSource, Record


async def _source(kafka: KafkaServer, raw: str, **options: Any) -> KafkaSource:
    settings = settings_for(
        kafka.bootstrap_servers,
        idempotence=kafka.idempotence,
        raw=raw,
        signals="unused",
        dead_letter="unused-too",
        source=SourceSettings(group_id=f"group-{raw}", session_timeout=6.0, **options),
    )
    source = KafkaSource(raw, settings.kafka, settings.source)
    await source.start()
    return source


async def _poll_until(source: KafkaSource, count: int) -> list[Record]:
    records: list[Record] = []

    async def enough() -> bool:
        records.extend(await source.poll(1_000))
        return len(records) >= count

    await eventually(enough, what=f"{count} records")
    return records


async def test_only_finished_offsets_are_committed_in_order(kafka: KafkaServer, topics: Topics) -> None:
    raw = await topics.make("raw", partitions=1)
    await produce(kafka.bootstrap_servers, raw, [b"%d" % n for n in range(10)])
    source = await _source(kafka, raw)
    records = await _poll_until(source, 10)
    assert [record.offset for record in records] == list(range(10))

    source.finish(records[5:])  # out of order: nothing may be committed past offset 0
    await source.commit()
    assert await committed(kafka.bootstrap_servers, f"group-{raw}", raw, 1) == {0: 0}

    source.finish(records[:3])
    await source.commit()
    assert await committed(kafka.bootstrap_servers, f"group-{raw}", raw, 1) == {0: 3}

    source.finish(records[3:5])
    await source.stop()
    assert await committed(kafka.bootstrap_servers, f"group-{raw}", raw, 1) == {0: 10}


async def test_no_more_is_read_while_too_many_bytes_are_unfinished(
    kafka: KafkaServer, topics: Topics
) -> None:
    raw = await topics.make("raw", partitions=2)
    size, count, bound = 20_000, 400, 1_000_000
    await produce(kafka.bootstrap_servers, raw, [b"x" * size] * count, partitions=2)
    source = await _source(kafka, raw, max_unfinished_bytes=bound)
    records: list[Record] = []
    finished = 0

    async def full() -> bool:
        records.extend(await source.poll(1_000))
        return source.outstanding_bytes() >= bound or len(records) == count

    try:
        while finished < count:
            await eventually(full, what="as many bytes as may be unfinished")
            # Records come in slices of 64, so the bound is passed by less than one of them.
            assert size * (len(records) - finished) == source.outstanding_bytes() < bound + 64 * size
            if len(records) < count:
                assert await source.poll(1_000, timeout=0.05) == []
            source.finish(records[finished:])
            finished = len(records)
    finally:
        await source.stop()


@pytest.mark.parametrize("codec", ["gzip", "lz4", "snappy", "zstd"])
async def test_batches_of_every_codec_are_read(codec: str, kafka: KafkaServer, topics: Topics) -> None:
    raw = await topics.make("raw", partitions=1)
    values = [b"%d " % n * 100 for n in range(50)]
    async with AIOKafkaProducer(
        bootstrap_servers=kafka.bootstrap_servers, compression_type=codec, linger_ms=50
    ) as producer:
        for future in [await producer.send(raw, value) for value in values]:
            await future
    source = await _source(kafka, raw)
    try:
        assert [record.value for record in await _poll_until(source, 50)] == values
    finally:
        await source.stop()


async def test_a_header_name_that_is_not_utf8_stops_nobody(
    kafka: KafkaServer, topics: Topics, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw = await topics.make("raw", partitions=1)
    await produce(kafka.bootstrap_servers, raw, [b"0", b"1"])
    async with AIOKafkaProducer(bootstrap_servers=kafka.bootstrap_servers) as producer:
        batch = producer.create_batch()
        batch.append(key=None, value=b"2", timestamp=None, headers=[("QQQQ", b"v")])
        batch.close()
        odd = bytearray(batch._build().replace(b"QQQQ", b"\xc3\xe2\xc3\xb3"))
        odd[17:21] = calc_crc32c(bytes(odd[21:])).to_bytes(4)
        monkeypatch.setattr(batch, "_build", lambda: odd)
        await (await producer.send_batch(batch, raw, partition=0))
    await produce(kafka.bootstrap_servers, raw, [b"3"])
    source = await _source(kafka, raw)
    try:
        records = await _poll_until(source, 4)
        assert [record.value for record in records] == [b"0", b"1", b"2", b"3"]
        assert records[2].headers == (("\\xc3\\xe2ó", b"v"),)
    finally:
        await source.stop()


async def test_a_revoked_partition_is_finished_before_it_is_given_away(
    kafka: KafkaServer, topics: Topics
) -> None:
    raw = await topics.make("raw", partitions=2)
    await produce(kafka.bootstrap_servers, raw, [b"%d" % n for n in range(20)], partitions=2)
    first = await _source(kafka, raw)
    taken = await _poll_until(first, 20)

    joining = asyncio.create_task(_source(kafka, raw))
    finishing = asyncio.get_running_loop().call_later(1.0, first.finish, taken)
    polling = asyncio.create_task(_poll_forever(first))
    second = await joining
    try:
        more = asyncio.create_task(_poll_forever(second))
        await eventually(lambda: len(_partitions(first)) == 1 and len(_partitions(second)) == 1)
        # The drain waited for `finish`, so nothing is read twice.
        assert await committed(kafka.bootstrap_servers, f"group-{raw}", raw, 2) == {0: 10, 1: 10}
        for task in (polling, more):
            task.cancel()
        results = await asyncio.gather(polling, more, return_exceptions=True)
        assert all(isinstance(result, asyncio.CancelledError) for result in results)
        assert first.outstanding() == 0
    finally:
        finishing.cancel()
        await first.stop()
        await second.stop()


async def test_a_partition_that_cannot_be_finished_in_time_is_given_up_and_never_committed_late(
    kafka: KafkaServer, topics: Topics
) -> None:
    raw = await topics.make("raw", partitions=1)
    await produce(kafka.bootstrap_servers, raw, [b"%d" % n for n in range(5)])
    first = await _source(kafka, raw, drain_timeout=0.5)
    taken = await _poll_until(first, 5)
    first.finish(taken[:2])

    second = await _source(kafka, raw)  # nobody polls meanwhile: the partition may come back to the first
    try:
        assert not taken[0].claim.active
        first.finish(taken)  # too late: the claim is over
        await first.commit()
        assert await committed(kafka.bootstrap_servers, f"group-{raw}", raw, 1) == {0: 2}
    finally:
        await first.stop()
        await second.stop()


async def test_a_stop_ends_in_time_beside_a_broker_that_is_silent() -> None:
    async with EmbeddedKafka() as embedded:
        kafka = KafkaServer(embedded.bootstrap_servers, is_apache=False)
        raw = await Topics(kafka).make("raw")
        await produce(kafka.bootstrap_servers, raw, [b"a"])
        source = await _source(kafka, raw, drain_timeout=2.0)
        source.finish(await _poll_until(source, 1))
        # This broker counts from 0, Apache Kafka from 1, and aiokafka says good-bye from 1 on.
        source._consumer._coordinator.generation = 1
        embedded.freeze()
        try:
            # A commit that takes all of its time, and then the good-bye: 40 s, if it may.
            await asyncio.wait_for(source.stop(), 15)
        finally:
            embedded.thaw()


async def test_a_stop_beside_a_broker_that_is_gone_does_not_cancel_who_asked_for_it(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with EmbeddedKafka() as embedded:
        kafka = KafkaServer(embedded.bootstrap_servers, is_apache=False)
        raw = await Topics(kafka).make("raw")
        await produce(kafka.bootstrap_servers, raw, [b"a"])
        source = await _source(kafka, raw, drain_timeout=2.0)
        await _poll_until(source, 1)
        await source.commit()  # so that the stop has none to do
        embedded.kill()
        await eventually(lambda: "Failed fetch messages" in caplog.text)
        caplog.clear()
        source._consumer._fetcher._retry_backoff = 60.0  # the stop finds a fetch in its pause
        await eventually(lambda: "Failed fetch messages" in caplog.text)
        await asyncio.wait_for(source.stop(), 15)


async def test_a_partition_that_ends_before_its_position_is_read_again_and_the_other_goes_on(
    kafka: KafkaServer, topics: Topics, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw = await topics.make("raw", partitions=2)
    await produce(kafka.bootstrap_servers, raw, [b"%d" % n for n in range(4)], partitions=2)
    source = await _source(kafka, raw)
    client = source._consumer._client
    send = client.send

    async def refusing(node: Any, request: Any, **options: Any) -> Any:
        """As Apache Kafka answers; the embedded broker lets a fetch behind the end wait."""
        answer = await send(node, request, **options)
        if not isinstance(request, FetchRequest):
            return answer
        behind = {p for _, asked in request.topics for p, offset, _ in asked if offset > 10}
        parts = [
            (topic, [(p, 1 if p in behind else code, *rest) for p, code, *rest in found])
            for topic, found in answer.topics
        ]
        return SimpleNamespace(API_VERSION=answer.API_VERSION, topics=parts)

    monkeypatch.setattr(client, "send", refusing)
    try:
        taken = await _poll_until(source, 4)
        source.finish(taken)
        source._consumer.seek(TopicPartition(raw, 0), 70)
        again = await _poll_until(source, 2)
        assert [(record.claim.partition.partition, record.offset) for record in again] == [(0, 0), (0, 1)]
        assert not any(r.claim.active for r in taken if r.claim.partition.partition == 0)
        assert all(r.claim.active for r in taken if r.claim.partition.partition == 1)
        source.finish(again)
        await source.commit()
    finally:
        await source.stop()


async def _poll_forever(source: KafkaSource) -> None:
    while True:
        source.finish(await source.poll(100, timeout=0.05))


def _partitions(source: KafkaSource) -> set[int]:
    return {tp.partition for tp in source._consumer.assignment()}
