"""The writer waits for a producer that keeps its batches, and for no other."""

import asyncio
from unittest.mock import AsyncMock, Mock

import pytest
from aiokafka.errors import KafkaTimeoutError, UnknownTopicOrPartitionError

from worker.settings import KafkaSettings, SinkSettings
from worker.sink.producer import KafkaSink
from worker.sink.record import OutRecord
from worker.sink.writer import BatchWriter

RECORDS = [OutRecord("out", b"BTC", b"1", ())]


def producer(*answers: object) -> Mock:
    """A producer of one partition that answers to ``send_batch`` in turn."""
    return Mock(partitions_for=AsyncMock(return_value={0}), send_batch=AsyncMock(side_effect=answers))


def writer(producer: Mock, *, patient: bool) -> BatchWriter:
    return BatchWriter(producer, Mock(of=AsyncMock(return_value=1_000_000)), 262_144, patient=patient)


async def test_a_batch_that_found_no_room_is_offered_again() -> None:
    acknowledged: asyncio.Future[object] = asyncio.get_running_loop().create_future()
    out = producer(KafkaTimeoutError(), KafkaTimeoutError(), acknowledged)
    [sent] = await writer(out, patient=True).submit(RECORDS, [0])
    assert sent.acknowledged is acknowledged
    assert len({id(call.args[0]) for call in out.send_batch.await_args_list}) == 1  # the same one


async def test_a_stop_ends_the_wait_and_so_does_a_topic_that_is_gone() -> None:
    asked, never = asyncio.Event(), asyncio.Event()

    async def no_room(*_: object, **__: object) -> None:
        asked.set()
        await never.wait()

    full = producer()
    full.send_batch = no_room
    waiting = asyncio.create_task(writer(full, patient=True).submit(RECORDS, [0]))
    await asked.wait()
    waiting.cancel()
    await asyncio.wait({waiting})
    assert waiting.cancelled()

    gone = producer(KafkaTimeoutError(), UnknownTopicOrPartitionError())
    with pytest.raises(UnknownTopicOrPartitionError, match="out"):
        await writer(gone, patient=True).submit(RECORDS, [0])


async def test_a_producer_that_gives_batches_up_is_not_waited_for() -> None:
    with pytest.raises(KafkaTimeoutError):
        await writer(producer(KafkaTimeoutError()), patient=False).submit(RECORDS, [0])


@pytest.mark.parametrize("idempotent", [True, False])
async def test_the_sink_is_as_patient_as_its_producer(idempotent: bool) -> None:
    sink = KafkaSink(KafkaSettings(idempotent_producer=idempotent), SinkSettings())
    assert sink._writer._patient is idempotent
