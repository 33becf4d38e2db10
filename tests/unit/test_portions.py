"""Long work on the loop is cut: every item once, in order, and others have their turn."""

import asyncio
from time import monotonic

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.portions import portions


async def slices(sizes: list[int]) -> list[slice]:
    return [part async for part in portions(sizes)]


@given(st.lists(st.integers(min_value=0, max_value=100_000), max_size=200))
def test_every_item_comes_once_and_in_order(sizes: list[int]) -> None:
    parts = asyncio.run(slices(sizes))
    assert [n for part in parts for n in range(len(sizes))[part]] == list(range(len(sizes)))
    for part in parts:
        held = sizes[part]
        assert 1 <= len(held) <= 16
        assert len(held) == 1 or sum(held) <= 65_536


@pytest.mark.parametrize("seconds", [0.0, 0.003])
async def test_the_loop_goes_round_where_the_work_is_long(seconds: float) -> None:
    rounds = 0

    async def other() -> None:
        nonlocal rounds
        while True:
            await asyncio.sleep(0)
            rounds += 1

    beside = asyncio.create_task(other())
    await asyncio.sleep(0)
    parts = 0
    async for _ in portions([1] * 160):
        end = monotonic() + seconds
        while monotonic() < end:  # work: nothing is awaited
            pass
        parts += 1
    beside.cancel()
    assert parts == 10
    assert rounds >= 9 if seconds else rounds < 9
