"""One pipeline against a real broker, with an engine that can be slowed, poisoned and broken."""

import asyncio
import json
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from schemas.dead_letters import DeadLetterHeaders, DeadLetterReason
from schemas.signals import CryptoSignal
from tests.fake_model import POISON, FakeEngine, FakeModel
from tests.kafka_io import committed, headers_of, ids, produce, read_topic
from tests.pipelines import outcomes, pipeline_settings, running_pipeline
from tests.servers import KafkaServer, Topics
from tests.waiting import eventually
from worker.embedded import EmbeddedKafka
from worker.inference.engine import HeadOutputs
from worker.inference.errors import EngineOutOfMemory
from worker.inference.tokenising import EncodedText
from worker.pipeline import EngineBrokenError
from worker.settings import BatchSettings, Settings, SinkSettings
from worker.watchdog import StalledError


async def test_every_message_has_one_outcome_and_order_within_a_partition_is_kept(
    kafka: KafkaServer, topics: Topics
) -> None:
    settings = await pipeline_settings(kafka, topics)
    values = [
        json.dumps({"id": f"m{n}", "text": f"비트 {n} " + "가 " * (n % 40)}).encode() for n in range(3_000)
    ]
    await produce(kafka.bootstrap_servers, settings.topics.raw, values, partitions=2)
    async with running_pipeline(settings, FakeEngine()) as (pipeline, stop, running):
        await outcomes(pipeline, running, 3_000)
        stop.set()
        await running
    records = await read_topic(kafka.bootstrap_servers, settings.topics.signals)
    assert sorted(ids(records)) == sorted(f"m{n}" for n in range(3_000))
    assert {r.key for r in records} == {b"BTC"}
    numbers = [int(i[1:]) for i in ids(records)]
    for partition in (0, 1):  # all carry the same key, so each raw partition's order shows
        mine = [n for n in numbers if n % 2 == partition]
        assert mine == sorted(mine)
    for record in records[:50]:
        CryptoSignal.model_validate_json(record.value)
        assert headers_of(record) == {"schema": "crypto-signal/1"}
    group = settings.source.group_id
    assert await committed(kafka.bootstrap_servers, group, settings.topics.raw, 2) == {0: 1_500, 1: 1_500}


async def test_a_poisonous_message_stands_alone_in_the_dead_letters(
    kafka: KafkaServer, topics: Topics
) -> None:
    settings = await pipeline_settings(kafka, topics, partitions=1)
    values = [f"메시지 {n}".encode() for n in range(60)]
    values[17] = values[41] = POISON.encode()
    await produce(kafka.bootstrap_servers, settings.topics.raw, values)
    async with running_pipeline(settings, FakeEngine()) as (pipeline, _, running):
        await outcomes(pipeline, running, 60)
    signals = await read_topic(kafka.bootstrap_servers, settings.topics.signals)
    letters = await read_topic(kafka.bootstrap_servers, settings.topics.dead_letter)
    assert len(signals) == 58
    assert [letter.value for letter in letters] == [POISON.encode()] * 2
    about = [DeadLetterHeaders.model_validate(headers_of(letter)) for letter in letters]
    assert {a.offset for a in about} == {17, 41}
    assert {a.reason for a in about} == {DeadLetterReason.INFERENCE_FAILED}
    assert "device-side failure" in about[0].detail


@dataclass
class _SmallDevice(FakeEngine):
    """Has no room to prepare more than ``room`` texts at once, or one that is poisonous."""

    room: int = 6

    def prepare(self, batch: Sequence[EncodedText]) -> list[EncodedText]:
        if len(batch) > self.room or (not self.immune and any(text.ids[0] for text in batch)):
            raise EngineOutOfMemory(f"no room for {len(batch)} texts")
        return super().prepare(batch)


class _PickyModel(FakeModel):
    """Its engine computes everything, and what it gives for a poisonous text is not decoded."""

    nothing = False

    def __init__(self) -> None:
        super().__init__(_Telling(immune=True))

    def decode(self, outputs: HeadOutputs) -> list[dict[str, Any]]:
        if self.nothing or outputs["n"].any():
            raise ValueError("no such class")
        return super().decode(outputs)


class _Telling(FakeEngine):
    def run(self, prepared: list[EncodedText]) -> HeadOutputs:
        super().run(prepared)
        return {"n": np.array([[text.ids[0]] for text in prepared], np.float32)}


@pytest.mark.parametrize("model", [FakeModel(_SmallDevice()), _PickyModel()], ids=["prepare", "decode"])
async def test_what_fails_before_or_after_the_engine_stands_alone_too(
    kafka: KafkaServer, topics: Topics, model: FakeModel
) -> None:
    settings = await pipeline_settings(kafka, topics, partitions=1)
    values = [f"메시지 {n}".encode() for n in range(60)]
    values[17] = values[41] = POISON.encode()
    await produce(kafka.bootstrap_servers, settings.topics.raw, values)
    async with running_pipeline(settings, model) as (pipeline, _, running):
        await outcomes(pipeline, running, 60)
    assert len(await read_topic(kafka.bootstrap_servers, settings.topics.signals)) == 58
    letters = await read_topic(kafka.bootstrap_servers, settings.topics.dead_letter)
    about = [DeadLetterHeaders.model_validate(headers_of(letter)) for letter in letters]
    assert [(a.offset, a.reason) for a in about] == [(n, DeadLetterReason.INFERENCE_FAILED) for n in (17, 41)]
    offsets = await committed(kafka.bootstrap_servers, settings.source.group_id, settings.topics.raw, 1)
    assert offsets == {0: 60}


@pytest.mark.parametrize("what", ["prepare", "decode"])
async def test_what_fails_on_every_message_before_or_after_the_engine_stops_the_worker(
    kafka: KafkaServer, topics: Topics, what: str
) -> None:
    model = FakeModel(_SmallDevice(room=0)) if what == "prepare" else _PickyModel()
    model.nothing = True  # type: ignore[attr-defined]
    settings = await pipeline_settings(kafka, topics, partitions=1)
    await produce(kafka.bootstrap_servers, settings.topics.raw, [b"a", b"b"])
    async with running_pipeline(settings, model) as (_, _, running):
        with pytest.raises(BaseExceptionGroup) as failed:
            await asyncio.wait_for(running, 30)
    assert failed.group_contains(EngineBrokenError)
    assert await read_topic(kafka.bootstrap_servers, settings.topics.dead_letter) == []


async def test_a_broken_engine_stops_the_worker_and_commits_nothing(
    kafka: KafkaServer, topics: Topics
) -> None:
    settings = await pipeline_settings(kafka, topics, partitions=1)
    await produce(kafka.bootstrap_servers, settings.topics.raw, [b"a", b"b"])
    async with running_pipeline(settings, FakeEngine(broken=True)) as (_, _, running):
        with pytest.raises(BaseExceptionGroup) as failed:
            await asyncio.wait_for(running, 30)
    assert failed.group_contains(EngineBrokenError)
    assert await read_topic(kafka.bootstrap_servers, settings.topics.dead_letter) == []
    offsets = await committed(kafka.bootstrap_servers, settings.source.group_id, settings.topics.raw, 1)
    assert offsets[0] in (None, 0)


PAYLOADS: dict[str, tuple[bytes | None, DeadLetterReason | None]] = {
    "broken json": (b'{"text": "x"', DeadLetterReason.INVALID_JSON),
    "no text": (b'{"likes": 1}', DeadLetterReason.INVALID_MESSAGE),
    "empty text": (b'{"text": ""}', DeadLetterReason.EMPTY_TEXT),
    "no value": (None, DeadLetterReason.EMPTY_PAYLOAD),
    "invalid utf-8": (b"\xff\xfe\x00", DeadLetterReason.NOT_UTF8),
    "oversized": (b"a" * 300_000, DeadLetterReason.PAYLOAD_TOO_LARGE),
    "long": ("가나다 ".encode() * 2_500, None),
    "emoji": ("🚀🚀🌕👨‍👩‍👧‍👦".encode(), None),
    "jamo": ("ㅋㅋㅋㅋㄹㅇㅋㅋ ㅠㅠ".encode(), None),
    "controls": (b"a\x00b\x1b[31mc\r\n", None),
    "bidi": ("\u202e비트\u202c \u200b\u200b".encode(), None),
}


async def test_every_kind_of_bad_input_ends_as_a_signal_or_a_dead_letter(
    kafka: KafkaServer, topics: Topics
) -> None:
    settings = await pipeline_settings(kafka, topics, partitions=1)
    await produce(
        kafka.bootstrap_servers,
        settings.topics.raw,
        [value for value, _ in PAYLOADS.values()],
        keys=[name.encode() for name in PAYLOADS],
        headers=[("trace", b"\xff\x00")],
    )
    async with running_pipeline(settings, FakeEngine()) as (pipeline, _, running):
        await outcomes(pipeline, running, len(PAYLOADS))
    signals = await read_topic(kafka.bootstrap_servers, settings.topics.signals)
    letters = {
        r.key.decode(): r for r in await read_topic(kafka.bootstrap_servers, settings.topics.dead_letter)
    }
    expected = {name: reason for name, (_, reason) in PAYLOADS.items() if reason is not None}
    assert set(letters) == set(expected)
    for name, reason in expected.items():
        headers = dict(letters[name].headers)
        assert headers["kbert.reason"] == reason.encode()
        assert headers["trace"] == b"\xff\x00"
        assert letters[name].value == (PAYLOADS[name][0] or b"")
    assert len(signals) == len(PAYLOADS) - len(expected)
    offsets = await committed(kafka.bootstrap_servers, settings.source.group_id, settings.topics.raw, 1)
    assert offsets == {0: len(PAYLOADS)}


async def test_a_stop_finishes_what_was_taken_and_leaves_the_rest(kafka: KafkaServer, topics: Topics) -> None:
    settings = await pipeline_settings(kafka, topics, partitions=1, batch=BatchSettings(max_queue_delay=0.2))
    await produce(
        kafka.bootstrap_servers, settings.topics.raw, [b"w " * 20 + b"%d" % n for n in range(2_000)]
    )
    async with running_pipeline(settings, FakeEngine(seconds_per_batch=0.02)) as (pipeline, stop, running):
        await eventually(lambda: pipeline.counts.signals > 50)
        stop.set()
        await running
        taken = pipeline.counts.records
        assert pipeline.counts.signals == taken
        assert taken < 2_000
    offsets = await committed(kafka.bootstrap_servers, settings.source.group_id, settings.topics.raw, 1)
    assert offsets == {0: taken}
    assert len(await read_topic(kafka.bootstrap_servers, settings.topics.signals)) == taken


async def test_a_stop_that_cannot_drain_ends_at_its_deadline_and_loses_nothing(
    kafka: KafkaServer, topics: Topics
) -> None:
    gate = threading.Event()
    raw_settings = await pipeline_settings(kafka, topics, partitions=1)
    settings = raw_settings.model_copy(
        update={"source": raw_settings.source.model_copy(update={"drain_timeout": 0.3})}
    )
    await produce(kafka.bootstrap_servers, settings.topics.raw, [b"%d" % n for n in range(20)])
    async with running_pipeline(settings, FakeEngine(gate=gate)) as (pipeline, stop, running):
        await eventually(lambda: pipeline.counts.records == 20)
        stop.set()
        await asyncio.wait_for(running, 10)
        gate.set()
    offsets = await committed(kafka.bootstrap_servers, settings.source.group_id, settings.topics.raw, 1)
    assert offsets[0] in (None, 0)


async def test_a_slow_engine_holds_the_source_back(kafka: KafkaServer, topics: Topics) -> None:
    settings = await pipeline_settings(
        kafka, topics, partitions=1, batch=BatchSettings(max_queue_delay=0.1), sink=SinkSettings()
    )
    await produce(kafka.bootstrap_servers, settings.topics.raw, [b"w " * 30] * 20_000)
    async with running_pipeline(settings, FakeEngine(seconds_per_batch=0.05)) as (pipeline, _, running):
        await eventually(lambda: pipeline.counts.signals > 200)
        assert not running.done()
        # 512 tokens a batch: what is taken is a few batches, not the topic.
        assert pipeline.counts.records - pipeline.counts.signals < 2_000


async def test_a_worker_that_does_not_move_stops_itself(kafka: KafkaServer, topics: Topics) -> None:
    gate = threading.Event()
    settings = _stall_within(await pipeline_settings(kafka, topics, partitions=1), 1.0)
    await produce(kafka.bootstrap_servers, settings.topics.raw, [b"a"])
    async with running_pipeline(settings, FakeEngine(gate=gate)) as (_, _, running):
        with pytest.raises(BaseExceptionGroup) as failed:
            await asyncio.wait_for(running, 30)
        gate.set()
    assert failed.group_contains(StalledError)


async def test_an_idle_worker_stays_and_one_whose_broker_is_silent_does_not() -> None:
    async with EmbeddedKafka() as embedded:
        kafka = KafkaServer(embedded.bootstrap_servers, is_apache=False)
        settings = _stall_within(await pipeline_settings(kafka, Topics(kafka), partitions=1), 2.0)
        await produce(kafka.bootstrap_servers, settings.topics.raw, [b"a"])
        async with running_pipeline(settings, FakeEngine()) as (pipeline, _, running):
            await outcomes(pipeline, running, 1)
            asked = _count_calls(pipeline._source, "lag")
            await eventually(lambda: running.done() or asked() >= 24)  # three limits long
            assert not running.done()
            embedded.freeze()
            try:
                with pytest.raises(BaseExceptionGroup) as failed:
                    await asyncio.wait_for(running, 30)
            finally:
                embedded.thaw()
        assert failed.group_contains(StalledError)


def _stall_within(settings: Settings, seconds: float) -> Settings:
    return settings.model_copy(update={"source": settings.source.model_copy(update={"stall_limit": seconds})})


def _count_calls(target: Any, name: str) -> Callable[[], int]:
    calls = 0
    original = getattr(target, name)

    def counted(*arguments: Any) -> Any:
        nonlocal calls
        calls += 1
        return original(*arguments)

    setattr(target, name, counted)
    return lambda: calls
