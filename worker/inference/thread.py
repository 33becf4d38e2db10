"""The one thread in which the engine runs, seen from asyncio."""

import asyncio
import contextlib
import queue
import sys
import threading
from dataclasses import dataclass
from typing import Any, Final

from worker.inference.engine import Engine, HeadOutputs
from worker.inference.errors import EngineStopped

_SWITCH_INTERVAL: Final = 0.0005


@dataclass(frozen=True, slots=True)
class _Job:
    prepared: Any
    future: asyncio.Future[HeadOutputs]
    loop: asyncio.AbstractEventLoop


class EngineThread:
    """Runs prepared batches one after another, in the order of their submission.

    An exception of the engine reaches the caller of its batch and the thread goes on. What is not an
    ``Exception`` (a panic in native code, ``SystemExit``) ends the thread: all who wait, and all who come
    later, get ``EngineStopped``, since nobody else would ever answer them.

    The thread is a daemon: a batch that hangs in native code does not keep the process from exiting.
    """

    def __init__(self, engine: Engine[Any], *, name: str = "kbert-engine") -> None:
        # The engine takes the interpreter for each of the hundreds of operations of a batch, and each time a
        # busy event loop may keep it that long: by default 5 ms. At half of the capacity of two cores the
        # median latency was 175 and 120 ms with it, 121 and 95 with this.
        sys.setswitchinterval(min(sys.getswitchinterval(), _SWITCH_INTERVAL))
        self._engine = engine
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._stopped: str | None = None
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)
        self._thread.start()

    @property
    def alive(self) -> bool:
        """Whether a submitted batch would run."""
        return self._stopped is None

    def submit(self, prepared: Any) -> asyncio.Future[HeadOutputs]:
        """Queue a batch from within a running event loop; the future gets its outputs.

        It fails with whatever the engine raised for this batch, or with ``EngineStopped`` when the thread
        is closed or dead. Cancelling it before its turn saves the computation.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[HeadOutputs] = loop.create_future()
        with self._lock:
            if self._stopped is None:
                self._jobs.put(_Job(prepared, future, loop))
            else:
                future.set_exception(EngineStopped(self._stopped))
        return future

    def close(self) -> None:
        """Refuse new batches at once; those submitted before still run. Does not wait."""
        with self._lock:
            if self._stopped is None:
                self._stopped = "The engine is closed."
                self._jobs.put(None)

    def join(self, timeout: float | None = None) -> bool:
        """Wait, blocking, until the thread has ended; False when ``timeout`` seconds were too few."""
        self._thread.join(timeout)
        return not self._thread.is_alive()

    def _work(self) -> None:
        reason = "The engine thread has ended."
        try:
            while (job := self._jobs.get()) is not None:
                if not job.future.cancelled():
                    self._run(job)
        except BaseException as error:
            reason = f"The engine thread died of {type(error).__name__}: {error}"
            # threading.excepthook reports it; SystemExit alone would pass in silence.
            if not isinstance(error, SystemExit):
                raise
        finally:
            self._fail_waiting(reason)

    def _run(self, job: _Job) -> None:
        try:
            outputs = self._engine.run(job.prepared)
        except Exception as error:  # noqa: BLE001 - it belongs to the caller
            _post(job, _fail, error)
        except BaseException as error:
            _post(job, _fail, EngineStopped(f"The engine thread died of {type(error).__name__}: {error}"))
            raise
        else:
            _post(job, _answer, outputs)

    def _fail_waiting(self, reason: str) -> None:
        with self._lock:
            self._stopped = self._stopped or reason
        with contextlib.suppress(queue.Empty):
            while True:
                job = self._jobs.get_nowait()
                if job is not None:
                    _post(job, _fail, EngineStopped(reason))


def _post(job: _Job, action: Any, value: object) -> None:
    # A loop that has closed has no caller left to tell.
    with contextlib.suppress(RuntimeError):
        job.loop.call_soon_threadsafe(action, job.future, value)


def _answer(future: asyncio.Future[HeadOutputs], outputs: HeadOutputs) -> None:
    if not future.done():
        future.set_result(outputs)


def _fail(future: asyncio.Future[HeadOutputs], error: Exception) -> None:
    if not future.done():
        future.set_exception(error)
