"""The batcher's promises: no loss, no duplication, order, budget, bounded queue and wait, drained close."""

import asyncio
import itertools
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from worker.batching import Batch, BatcherClosedError, DynamicBatcher

BUDGET = 64
sizes = st.lists(st.integers(1, BUDGET), min_size=1, max_size=120)


def run(scenario: Callable[[], Awaitable[Any]]) -> Any:
    async def bounded() -> Any:
        async with asyncio.timeout(20):
            return await scenario()

    return asyncio.run(bounded())


class FakeEngine:
    """Serves a batch in ``tokens / rate`` seconds of a virtual clock, one at a time."""

    def __init__(self, rate: float) -> None:
        self.rate = rate
        self.now = 0.0

    def clock(self) -> float:
        return self.now


@given(sizes=sizes, queue_batches=st.integers(1, 4), pauses=st.lists(st.booleans(), max_size=120))
@settings(max_examples=150, deadline=None)
def test_every_item_comes_out_once_in_order_within_the_budget(
    sizes: list[int], queue_batches: int, pauses: list[bool]
) -> None:
    async def scenario() -> None:
        batcher: DynamicBatcher[int] = DynamicBatcher(BUDGET, queue_batches * BUDGET, 1.0)
        taken: list[int] = []
        most_queued = 0

        async def produce() -> None:
            nonlocal most_queued
            for index, size in enumerate(sizes):
                await batcher.put(index, size)
                most_queued = max(most_queued, batcher.queued_tokens)
                if index < len(pauses) and pauses[index]:
                    await asyncio.sleep(0)
            batcher.close()

        async def consume() -> None:
            running: asyncio.Future[object] | None = None
            while (batch := await batcher.next_batch(running)) is not None:
                assert 0 < batch.tokens <= BUDGET
                assert batch.tokens == sum(sizes[index] for index in batch.items)
                taken.extend(batch.items)
                running = asyncio.get_running_loop().create_future()
                asyncio.get_running_loop().call_soon(running.set_result, None)

        await asyncio.gather(produce(), consume())
        assert taken == list(range(len(sizes)))
        assert most_queued <= batcher.max_queue_tokens
        assert batcher.queued_tokens == 0
        assert batcher.queued_items == 0

    run(scenario)


@given(sizes=sizes)
@settings(max_examples=50, deadline=None)
def test_a_batch_is_cut_only_where_the_next_item_does_not_fit(sizes: list[int]) -> None:
    async def scenario() -> None:
        batcher: DynamicBatcher[int] = DynamicBatcher(BUDGET, sum(sizes) + BUDGET, 1.0)
        batcher.record_service(10_000_000, 1.0)
        for index, size in enumerate(sizes):
            await batcher.put(index, size)
        batcher.close()
        batches: list[Batch[int]] = []
        while (batch := await batcher.next_batch()) is not None:
            batches.append(batch)
        for batch, following in itertools.pairwise(batches):
            assert batch.tokens + sizes[following.items[0]] > BUDGET

    run(scenario)


def test_an_idle_engine_takes_what_is_there_at_once() -> None:
    async def scenario() -> None:
        batcher: DynamicBatcher[str] = DynamicBatcher(BUDGET, 4 * BUDGET, 1.0)
        await batcher.put("only", 1)
        batch = await batcher.next_batch()
        assert batch is not None
        assert batch.items == ["only"]

    run(scenario)


def test_a_busy_engine_lets_the_queue_grow_until_a_batch_is_full_or_the_engine_is_free() -> None:
    async def scenario() -> None:
        batcher: DynamicBatcher[int] = DynamicBatcher(BUDGET, 4 * BUDGET, 1.0)
        running: asyncio.Future[object] = asyncio.get_running_loop().create_future()
        await batcher.put(0, BUDGET // 2)
        waiting = asyncio.create_task(batcher.next_batch(running))
        for _ in range(20):
            await asyncio.sleep(0)
        assert not waiting.done()  # half a batch, and the engine is busy
        await batcher.put(1, BUDGET // 2)
        full = await waiting
        assert full is not None
        assert full.items == [0, 1]  # handed out early: it cannot grow

        await batcher.put(2, 1)
        waiting = asyncio.create_task(batcher.next_batch(running))
        for _ in range(20):
            await asyncio.sleep(0)
        assert not waiting.done()
        running.set_result(None)
        part = await waiting
        assert part is not None
        assert part.items == [2]

    run(scenario)


@given(
    sizes=st.lists(st.integers(1, BUDGET), min_size=10, max_size=200),
    rate=st.floats(50.0, 5000.0),
    delay=st.floats(0.05, 3.0),
)
@settings(max_examples=60, deadline=None)
def test_wait_is_bounded_by_the_measured_rate(sizes: list[int], rate: float, delay: float) -> None:
    """Under a flood, the admitted queue never holds more than ``delay`` seconds of work or one batch."""

    async def scenario() -> None:
        engine = FakeEngine(rate)
        batcher: DynamicBatcher[int] = DynamicBatcher(BUDGET, 1_000_000, delay, clock=engine.clock)
        batcher.record_service(int(rate * 100), 100.0)
        longest = 0.0

        async def produce() -> None:
            for index, size in enumerate(sizes):
                await batcher.put(index, size)
            batcher.close()

        async def consume() -> None:
            nonlocal longest
            while (batch := await batcher.next_batch()) is not None:
                longest = max(longest, batch.oldest_wait)
                engine.now += batch.tokens / engine.rate  # the engine works, the queue fills up again
                await asyncio.sleep(0)

        await asyncio.gather(produce(), consume())
        one_batch = BUDGET / rate
        assert longest <= max(delay, one_batch) + one_batch + 1e-6

    run(scenario)


def test_a_full_queue_holds_the_putter_and_loses_nothing() -> None:
    async def scenario() -> None:
        batcher: DynamicBatcher[int] = DynamicBatcher(BUDGET, BUDGET, 1.0)
        await batcher.put(0, BUDGET)
        second = asyncio.create_task(batcher.put(1, BUDGET))
        room = asyncio.create_task(batcher.wait_for_room())
        for _ in range(20):
            await asyncio.sleep(0)
        assert not second.done()
        assert not room.done()
        first = await batcher.next_batch()
        assert first is not None
        assert first.items == [0]
        await second
        rest = await batcher.next_batch()
        assert rest is not None
        assert rest.items == [1]
        await room

    run(scenario)


def test_waiting_putters_are_served_in_turn() -> None:
    async def scenario() -> None:
        batcher: DynamicBatcher[int] = DynamicBatcher(BUDGET, BUDGET, 1.0)
        putters = [asyncio.create_task(batcher.put(n, BUDGET)) for n in range(6)]
        taken = []
        for _ in range(6):
            batch = await batcher.next_batch()
            assert batch is not None
            taken += batch.items
        await asyncio.gather(*putters)
        assert taken == list(range(6))

    run(scenario)


def test_close_refuses_new_items_wakes_everyone_and_drains() -> None:
    async def scenario() -> None:
        batcher: DynamicBatcher[int] = DynamicBatcher(BUDGET, BUDGET, 1.0)
        await batcher.put(0, BUDGET)
        blocked = asyncio.create_task(batcher.put(1, BUDGET))
        await asyncio.sleep(0)
        batcher.close()
        with pytest.raises(BatcherClosedError):
            await blocked
        with pytest.raises(BatcherClosedError):
            await batcher.put(2, 1)
        last = await batcher.next_batch()
        assert last is not None
        assert last.items == [0]
        assert await batcher.next_batch() is None

    run(scenario)


def test_a_cancelled_putter_leaves_no_trace() -> None:
    async def scenario() -> None:
        batcher: DynamicBatcher[int] = DynamicBatcher(BUDGET, BUDGET, 1.0)
        await batcher.put(0, BUDGET)
        blocked = asyncio.create_task(batcher.put(1, BUDGET))
        await asyncio.sleep(0)
        blocked.cancel()
        await asyncio.gather(blocked, return_exceptions=True)
        first = await batcher.next_batch()
        assert first is not None
        await batcher.put(2, BUDGET)
        second = await batcher.next_batch()
        assert second is not None
        assert second.items == [2]

    run(scenario)


def test_an_item_over_the_budget_is_refused() -> None:
    async def scenario() -> None:
        batcher: DynamicBatcher[int] = DynamicBatcher(BUDGET, BUDGET, 1.0)
        with pytest.raises(ValueError, match="65 tokens"):
            await batcher.put(0, BUDGET + 1)

    run(scenario)


def test_a_queue_smaller_than_a_batch_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match=r"batch\.max_queue_tokens=10"):
        DynamicBatcher(BUDGET, 10, 1.0)
