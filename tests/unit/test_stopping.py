"""Work that a stop cuts off."""

import asyncio
import signal
import subprocess
import sys
import threading
from collections.abc import Callable

import pytest

from worker.stopping import in_own_thread, unless_stopped


async def test_work_that_ends_before_the_stop_gives_its_result() -> None:
    async def work() -> str:
        await asyncio.sleep(0)
        return "done"

    assert await unless_stopped(asyncio.Event(), work()) == "done"


async def test_a_stop_cuts_work_off_where_it_waits_and_lets_it_clean_up() -> None:
    stop, waits, cleaned = asyncio.Event(), asyncio.Event(), False

    async def work() -> str:
        nonlocal cleaned
        try:
            waits.set()
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            cleaned = True
        return "never"

    running = asyncio.create_task(unless_stopped(stop, work()))
    await waits.wait()
    assert not running.done()
    stop.set()
    assert await asyncio.wait_for(running, 10) is None
    assert cleaned


async def test_errors_and_time_outs_of_the_work_are_its_own() -> None:
    async def fails(error: Exception) -> None:
        raise error

    for error in (TimeoutError("its own"), ValueError("no")):
        with pytest.raises(type(error)) as raised:
            await unless_stopped(asyncio.Event(), fails(error))
        assert raised.value is error


async def test_a_thread_of_its_own_gives_its_result_or_its_error() -> None:
    def fails() -> None:
        raise KeyError("no")

    stop = asyncio.Event()
    name: Callable[[], str] = lambda: threading.current_thread().name  # noqa: E731
    assert await in_own_thread(name, "mine", stop) == "mine"
    with pytest.raises(KeyError):
        await in_own_thread(fails, "mine", stop)


_HANGS = """
import asyncio, sys, threading
from concurrent.futures import ThreadPoolExecutor
from worker.stopping import in_own_thread, unless_stopped

hangs = threading.Event()

def download():  # as huggingface_hub does it, in threads that the interpreter waits for
    with ThreadPoolExecutor() as pool:
        pool.submit(hangs.wait).result()

async def main():
    stop = asyncio.Event()
    if {stopped}:
        asyncio.get_running_loop().call_later(0.1, stop.set)
        await unless_stopped(stop, in_own_thread(download, "download", stop))
    else:
        async with asyncio.timeout(0.1):
            await in_own_thread(download, "download", stop)

asyncio.run(main())
print("said at the end")
"""


_STOPPED_TWICE = """
import asyncio, os, signal
from worker.app import stop_on_signals

if {first}:  # of a container, for which the kernel takes no default action
    signal.raise_signal = lambda number: None

async def main():
    async with stop_on_signals() as stop:
        os.kill(os.getpid(), signal.{name})
        await stop.wait()
        os.kill(os.getpid(), signal.{name})
        await asyncio.Event().wait()

asyncio.run(main())
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("first", [True, False])
def test_a_second_stop_ends_the_process_also_the_first_of_a_container(
    first: bool, number: signal.Signals
) -> None:
    """It went on, and said that it was asked to stop."""
    done = subprocess.run(
        [sys.executable, "-c", _STOPPED_TWICE.format(first=first, name=number.name)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == (128 + number if first else -number), done.stdout + done.stderr
    assert (done.stdout + done.stderr).count("stop.requested") == 1


@pytest.mark.parametrize(("stopped", "status"), [(True, 0), (False, 1)])
def test_a_thread_that_hangs_does_not_hold_the_process_up(stopped: bool, status: int) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _HANGS.format(stopped=stopped)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == status, done.stderr
    assert ("said at the end" in done.stdout) == stopped
    assert ("TimeoutError" in done.stderr) != stopped
