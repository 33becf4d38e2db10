"""The engine thread answers every caller once: with outputs, with the engine's error, or that it is gone."""

import asyncio
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from worker.inference.engine import Filler, HeadOutputs
from worker.inference.errors import EngineOutOfMemory, EngineStopped
from worker.inference.thread import EngineThread

DEADLINE = 10.0


class ScriptedEngine:
    """``run(value)`` returns it; raises it if it is an exception; an Event makes it wait."""

    description = "scripted"
    default_batch_tokens = 1

    def __init__(self) -> None:
        self.ran: list[Any] = []
        self.threads: set[int] = set()
        self.entered = threading.Event()

    def prepare(self, batch: Any) -> Any:
        return batch

    def filler(self, prepared: Any) -> Filler:
        return Filler()

    def infer(self, batch: Any) -> HeadOutputs:
        return self.run(batch)

    def run(self, prepared: Any) -> HeadOutputs:
        self.threads.add(threading.get_ident())
        self.ran.append(prepared)
        self.entered.set()
        if isinstance(prepared, threading.Event):
            assert prepared.wait(DEADLINE)
        if isinstance(prepared, BaseException):
            raise prepared
        return {"value": np.array([0 if isinstance(prepared, threading.Event) else prepared])}


class Panic(BaseException):
    """Not an Exception, as a panic in native code is none."""


@pytest.fixture
def engine() -> ScriptedEngine:
    return ScriptedEngine()


@pytest.fixture
def thread(engine: ScriptedEngine) -> Iterator[EngineThread]:
    thread = EngineThread(engine)
    yield thread
    thread.close()
    assert thread.join(DEADLINE), "the engine thread did not end"


async def value(future: asyncio.Future[HeadOutputs]) -> int:
    return int((await asyncio.wait_for(future, DEADLINE))["value"][0])


async def test_batches_run_in_order_in_one_other_thread(thread: EngineThread, engine: ScriptedEngine) -> None:
    futures = [thread.submit(number) for number in range(50)]
    assert [await value(future) for future in futures] == list(range(50))
    assert engine.ran == list(range(50))
    assert len(engine.threads) == 1
    assert threading.get_ident() not in engine.threads


async def test_the_loop_runs_while_the_engine_does(thread: EngineThread, engine: ScriptedEngine) -> None:
    hold = threading.Event()
    future = thread.submit(hold)
    await asyncio.wait_for(asyncio.to_thread(engine.entered.wait, DEADLINE), DEADLINE)
    assert not future.done()
    hold.set()
    assert await value(future) == 0


@pytest.mark.parametrize("error", [ValueError("bad batch"), EngineOutOfMemory("too big")])
async def test_an_error_reaches_its_caller_alone(thread: EngineThread, error: Exception) -> None:
    before, failing, after = thread.submit(1), thread.submit(error), thread.submit(2)
    assert await value(before) == 1
    with pytest.raises(type(error), match=str(error)):
        await value(failing)
    assert await value(after) == 2
    assert thread.alive


@pytest.mark.parametrize("fatal", [Panic("native"), SystemExit(3)])
async def test_death_fails_all_who_wait_and_all_who_come(
    thread: EngineThread, engine: ScriptedEngine, fatal: BaseException, monkeypatch: pytest.MonkeyPatch
) -> None:
    reported: list[type[BaseException] | None] = []
    monkeypatch.setattr(threading, "excepthook", lambda args: reported.append(args.exc_type))
    hold = threading.Event()
    running, dying, waiting = thread.submit(hold), thread.submit(fatal), thread.submit(1)
    hold.set()
    assert await value(running) == 0
    for future in (dying, waiting):
        with pytest.raises(EngineStopped, match=f"The engine thread died of {type(fatal).__name__}"):
            await value(future)
    assert thread.join(DEADLINE)
    assert not thread.alive
    with pytest.raises(EngineStopped, match="died"):
        await value(thread.submit(2))
    assert 2 not in engine.ran
    assert reported == ([Panic] if isinstance(fatal, Panic) else [])


async def test_closing_runs_what_was_submitted_and_refuses_the_rest(
    thread: EngineThread, engine: ScriptedEngine
) -> None:
    hold = threading.Event()
    futures = [thread.submit(hold), thread.submit(1), thread.submit(2)]
    thread.close()
    thread.close()
    with pytest.raises(EngineStopped, match="closed"):
        await value(thread.submit(3))
    hold.set()
    assert [await value(future) for future in futures] == [0, 1, 2]
    assert thread.join(DEADLINE)
    assert 3 not in engine.ran


async def test_a_cancelled_batch_is_not_computed(thread: EngineThread, engine: ScriptedEngine) -> None:
    hold = threading.Event()
    running, cancelled, after = thread.submit(hold), thread.submit(1), thread.submit(2)
    cancelled.cancel()
    hold.set()
    assert await value(running) == 0
    assert await value(after) == 2
    assert 1 not in engine.ran


async def test_a_batch_cancelled_while_it_runs_disturbs_nobody(
    thread: EngineThread, engine: ScriptedEngine
) -> None:
    complaints: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
    hold = threading.Event()
    running = thread.submit(hold)
    await asyncio.to_thread(engine.entered.wait, DEADLINE)
    running.cancel()
    after = thread.submit(1)
    hold.set()
    assert await value(after) == 1
    assert not complaints


def test_a_loop_that_closed_meanwhile_does_not_kill_the_thread(
    thread: EngineThread, engine: ScriptedEngine
) -> None:
    hold = threading.Event()

    async def leave() -> None:
        thread.submit(hold)
        await asyncio.to_thread(engine.entered.wait, DEADLINE)

    asyncio.run(leave())
    hold.set()

    async def return_later() -> int:
        return await value(thread.submit(7))

    assert asyncio.run(return_later()) == 7


def test_the_thread_does_not_keep_the_process_alive(thread: EngineThread) -> None:
    assert thread._thread.daemon
