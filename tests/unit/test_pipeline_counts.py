"""What a pipeline counts, measures and refuses, without a broker."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any
from unittest.mock import AsyncMock, Mock

import orjson
import pytest
from aiokafka import TopicPartition
from prometheus_client import REGISTRY

from schemas.dead_letters import DeadLetterHeaders, DeadLetterReason
from schemas.topics import ID_HEADER, TIMESTAMP_HEADER
from tests.fake_model import FakeModel
from worker import app
from worker.app import _started
from worker.commands.dead_letter import _original
from worker.errors import ConfigurationError
from worker.inference.turns import Turns
from worker.pipeline import Pipeline, _Outcome, _record_id, batch_bounds
from worker.settings import BatchSettings, Settings, load_settings
from worker.sink.record import OutRecord
from worker.source.dead_letters import DeadLetter
from worker.source.decoding import record_time
from worker.source.record import Claim, Record, unread
from worker.tasks import crypto_classes
from worker.telemetry.health import HEALTH


class Delivered:
    """A delivery whose outcome is known."""

    def __init__(self, too_large: list[int]) -> None:
        self._too_large = too_large

    async def acknowledged(self) -> list[int]:
        return self._too_large


def pipeline(settings: Settings | None = None, **parts: Any) -> Pipeline:
    source = Mock(outstanding=Mock(return_value=0))
    usual: dict[str, Any] = {
        "source": source,
        "sink": Mock(),
        "model": FakeModel(),
        "engine": Mock(),
        "task": Mock(),
    }
    return Pipeline(settings or load_settings(_env_file=None), **usual | parts)


def signal(**changed: object) -> dict[str, Any]:
    return {"sentiment_strength": "neutral", "action_signal": "hold", "emotions": ["fear"]} | changed


def total(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(name, {"pipeline": "crypto", **labels}) or 0.0


async def test_a_signal_that_is_too_large_counts_as_its_dead_letter_alone() -> None:
    sink = Mock(send=AsyncMock(return_value=Delivered([])))
    worker = pipeline(sink=sink, task=Mock(classes=crypto_classes))
    signals = [signal(), signal(action_signal="buy", emotions=["greed"]), signal()]
    records: list[Record] = [unread("raw") for _ in signals]
    out = [OutRecord("signals.crypto", b"BTC", orjson.dumps(one), ()) for one in signals]
    before = {
        "signals": total("kbert_signals_total"),
        "hold": total("kbert_signal_classes_total", field="action_signal", value="hold"),
        "buy": total("kbert_signal_classes_total", field="action_signal", value="buy"),
        "greed": total("kbert_signal_classes_total", field="emotions", value="greed"),
    }
    worker._unacknowledged.put_nowait((_Outcome(records, out, crypto_classes(signals)), Delivered([1]), 0.0))
    worker._unacknowledged.put_nowait(None)
    await worker._acknowledge()
    assert (worker.counts.signals, worker.counts.dead_letters) == (2, 1)
    assert total("kbert_signals_total") == before["signals"] + 2
    classes = {("action_signal", "hold"): 2, ("action_signal", "buy"): 0, ("emotions", "greed"): 0}
    for (field, value), more in classes.items():
        assert total("kbert_signal_classes_total", field=field, value=value) == before[value] + more
    sink.send.assert_awaited_once()  # the dead letter


def replay(letter: OutRecord, at: int) -> Record:
    """The record that `kbert dead-letter replay` makes of a dead letter, written at a time (ms)."""
    headers = [(name, value or b"") for name, value in letter.headers]
    about = DeadLetterHeaders.model_validate({name: value.decode() for name, value in headers})
    out = _original(DeadLetter(0, 0, letter.key, letter.value, headers, about))
    again = [(name, value or b"") for name, value in out.headers]
    return Record(Claim(TopicPartition(out.topic, 0)), 99, at, out.key, out.value, again)


@pytest.mark.parametrize(
    ("timestamp", "made_up"), [(1_750_000_000_000, "raw:0:7:1750000000000"), (-1, "raw:0:7")]
)
def test_a_message_keeps_its_made_up_id_and_its_time_through_replays(timestamp: int, made_up: str) -> None:
    """A replay moved a message without published_at to the moment of the replay."""
    record = Record(Claim(TopicPartition("raw", 0)), 7, timestamp, b"key", b"text", [("trace", b"t")])
    worker = pipeline()
    for hours in range(1, 4):
        assert _record_id(record) == made_up
        if timestamp > 0:
            assert record_time(record).timestamp() * 1000 == timestamp
        refused = _Outcome([], [])
        worker._refuse(refused, record, DeadLetterReason.INFERENCE_FAILED, "x")
        record = replay(refused.out[0], 1_760_000_000_000 + hours * 3_600_000)
        assert dict(record.headers)["trace"] == b"t"
        assert {name for name, _ in record.headers} == {"trace", ID_HEADER, TIMESTAMP_HEADER}


def test_an_id_that_a_replay_gave_is_kept() -> None:
    given = Record(Claim(TopicPartition("raw", 0)), 7, 1, None, b"x", [(ID_HEADER, b"given")])
    empty = Record(Claim(TopicPartition("raw", 0)), 7, 1, None, b"x", [(ID_HEADER, b"")])
    assert (_record_id(given), _record_id(empty)) == ("given", "raw:0:7:1")


@pytest.mark.parametrize("how", ["failed", "cancelled", "done"])
async def test_only_a_batch_that_was_served_tells_the_rate(how: str) -> None:
    batcher = Mock(queued_tokens=0, queued_items=0)  # its gauges stay when the test is over
    worker = pipeline(make_batcher=Mock(return_value=batcher))
    outputs: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    worker._time_service(outputs, None, 512)
    if how == "failed":
        outputs.set_exception(RuntimeError("device-side failure"))
    elif how == "cancelled":
        outputs.cancel()
    else:
        outputs.set_result({})
    await asyncio.wait({outputs})
    await asyncio.sleep(0)
    assert batcher.record_service.call_count == (how == "done")


@pytest.mark.parametrize(
    ("batch", "bounds"),
    [
        (BatchSettings(), (16_384, 262_144)),
        (BatchSettings(max_batch_tokens=16), (512, 8_192)),
        (BatchSettings(max_batch_tokens=8_192, max_queue_tokens=8_192), (8_192, 8_192)),
    ],
)
def test_a_batch_has_room_for_the_longest_text(batch: BatchSettings, bounds: tuple[int, int]) -> None:
    assert batch_bounds(batch, FakeModel(max_length=512, default_batch_tokens=16_384)) == bounds


@pytest.mark.parametrize(
    ("queue", "mend"),
    [
        (8_192, r"raise it to 16384 or more, or set batch\.max_batch_tokens=8192\."),
        (100, r"raise it to 16384 or more\.$"),
    ],
)
async def test_a_queue_below_a_batch_is_a_sentence_before_anything_connects(
    queue: int, mend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, connected = FakeModel(max_length=512, default_batch_tokens=16_384), Mock()
    monkeypatch.setattr(app, "load_configured", lambda *_: model)
    monkeypatch.setattr(app, "connected", connected)
    settings = load_settings(_env_file=None, batch=BatchSettings(max_queue_tokens=queue))
    async with AsyncExitStack() as stack:
        with pytest.raises(ConfigurationError, match=rf"batch\.max_queue_tokens={queue} is .* {mend}"):
            await _started("crypto", settings, Turns(), stack, asyncio.Event())
    connected.assert_not_called()


async def test_a_worker_that_waits_for_its_group_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    lacks: list[str | None] = []

    @asynccontextmanager
    async def connected(*_: Any) -> AsyncIterator[tuple[Mock, Mock]]:
        lacks.append(HEALTH.parts()["worker-crypto"])
        yield Mock(), Mock()

    monkeypatch.setattr(app, "load_configured", lambda *_: FakeModel())
    monkeypatch.setattr(app, "connected", connected)
    monkeypatch.setattr(app, "task_for", Mock())
    async with AsyncExitStack() as stack:
        await _started("crypto", load_settings(_env_file=None), Turns(), stack, asyncio.Event())
    assert lacks == ["joining the consumer group"]


async def test_a_worker_whose_topic_is_gone_is_no_spare_member() -> None:
    source = Mock(
        outstanding=Mock(return_value=0),
        lag=AsyncMock(return_value={}),
        claims_fail=False,
        joined=True,
        topic_is_gone=True,
    )
    seen = await pipeline(source=source)._look(1.0)
    assert (seen.problem, seen.excused) == ("there is no topic raw.crypto", False)
