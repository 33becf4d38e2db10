"""What a pipeline counts, measures and refuses, without a broker."""

import asyncio
from contextlib import AsyncExitStack
from typing import Any
from unittest.mock import AsyncMock, Mock

import orjson
import pytest
from prometheus_client import REGISTRY

from tests.fake_model import FakeModel
from worker import app
from worker.app import _started
from worker.errors import ConfigurationError
from worker.inference.turns import Turns
from worker.pipeline import Pipeline, _Outcome, batch_bounds
from worker.settings import BatchSettings, Settings, load_settings
from worker.sink.record import OutRecord
from worker.source.record import Record, unread
from worker.tasks import crypto_classes


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
