"""The fan-out: bounded queues, filters, and one slow reader that harms nobody."""

import asyncio

import pytest

from schemas.signals import CryptoSignal
from tests.serving import full_signal, now
from tests.waiting import eventually
from worker.serve.fresh import Fresh
from worker.serve.hub import Ending, Event, Hub, TooManyStreamsError, pump
from worker.signal_filter import SignalFilter


def signal_event(number: int, coin: str = "BTC") -> Event:
    signal = CryptoSignal.model_validate(full_signal(number, now(), (coin,)))
    return Event("signal", b'{"n":%d}' % number, signal=signal)


async def test_a_full_queue_ends_its_reader_and_only_it() -> None:
    hub = Hub(queue=3, streams=10)
    slow = hub.subscribe(SignalFilter(), ["signal"])
    narrow = hub.subscribe(SignalFilter(coins=frozenset({"ETH"})), ["signal"])
    fast = hub.subscribe(SignalFilter(), ["signal"])
    taken = 0
    for number in range(10):
        hub.publish(signal_event(number))
        taken += len(await fast.take())
    assert slow.ending is Ending.SLOW
    assert (narrow.ending, fast.ending, taken) == (None, None, 10)


async def test_a_write_that_hangs_is_cancelled_when_the_queue_is_full() -> None:
    hub = Hub(queue=2, streams=10)
    reader = hub.subscribe(SignalFilter(), ["signal"])
    writing = asyncio.Event()

    async def write(_: list[Event]) -> None:
        writing.set()
        await asyncio.Event().wait()

    async def gone() -> None:
        await asyncio.Event().wait()

    pumping = asyncio.create_task(pump(reader, kind="sse", write=write, gone=gone))
    hub.publish(signal_event(0))
    await writing.wait()
    for number in range(3):
        hub.publish(signal_event(number))
    async with asyncio.timeout(5):
        assert await pumping is Ending.SLOW


async def test_changes_follow_the_coin_filter_and_kinds_are_chosen() -> None:
    hub = Hub(queue=5, streams=10)
    bitcoin = hub.subscribe(SignalFilter(coins=frozenset({"BTC"})), ["signal", "aggregates"])
    signals = hub.subscribe(SignalFilter(), ["signal"])
    hub.publish(Event("aggregates", b"{}", symbols=["ETH"]))
    hub.publish(Event("aggregates", b"{}", symbols=["BTC", "ETH"]))
    hub.publish(signal_event(1, "ETH"))
    assert [event.kind for event in await bitcoin.take()] == ["aggregates"]
    assert [event.kind for event in await signals.take()] == ["signal"]


async def test_streams_are_limited_and_a_closed_hub_ends_all() -> None:
    hub = Hub(queue=5, streams=1)
    first = hub.subscribe(SignalFilter(), ["signal"])
    with pytest.raises(TooManyStreamsError):
        hub.subscribe(SignalFilter(), ["signal"])
    hub.close()
    assert await first.ended() is Ending.STOPPING
    hub.leave(first)
    assert hub.subscribe(SignalFilter(), ["signal"]).ending is Ending.STOPPING


async def test_an_answer_is_made_once_for_all_who_ask_at_once() -> None:
    made = 0

    async def make() -> int:
        nonlocal made
        made += 1
        await asyncio.sleep(0)
        return made

    answers: Fresh[int] = Fresh(fresh=60, usable=60)
    assert set(await asyncio.gather(*(answers.get("key", make) for _ in range(50)))) == {1}
    stale: Fresh[int] = Fresh(fresh=-1, usable=60)
    assert await stale.get("key", make) == 2
    assert await stale.get("key", make) == 2  # the old one, while the next is made

    async def renewed() -> bool:
        return await stale.get("key", make) > 2

    await eventually(renewed, what="the next answer")
