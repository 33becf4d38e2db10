"""A reader whose connecting is cut short, or that was never entered, leaves no consumer behind."""

import asyncio
import gc
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

import pytest

from tests.silent_server import silent_server
from worker.clients import SignalStream
from worker.settings import KafkaSettings
from worker.source.counting import TopicCounter

Reader = AbstractAsyncContextManager[Any]


def a_stream(address: str) -> Reader:
    return SignalStream(address)


def a_counter(address: str) -> Reader:
    return TopicCounter(KafkaSettings(bootstrap_servers=address), "signals")


@pytest.fixture
async def complaints() -> list[str]:
    """What the loop's exception handler is told, as an unclosed consumer tells it."""
    told: list[str] = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: told.append(context["message"]))
    return told


@pytest.mark.parametrize("make", [a_stream, a_counter])
async def test_a_reader_cancelled_while_it_connects_closes_its_consumer(
    make: Callable[[str], Reader], complaints: list[str]
) -> None:
    async with silent_server() as (address, asked):
        entering = asyncio.create_task(make(address).__aenter__())
        await asked.wait()
        entering.cancel()
        await asyncio.wait({entering})
        assert entering.cancelled()
        del entering
        gc.collect()
    assert complaints == []


@pytest.mark.parametrize("make", [a_stream, a_counter])
async def test_a_reader_that_was_never_entered_leaves_nothing_open(
    make: Callable[[str], Reader], complaints: list[str]
) -> None:
    make("127.0.0.1:1")
    gc.collect()
    assert complaints == []
