"""``kbert`` as the fault tests start it: ``python -m tests.faults.worker_entry run --only worker``.

FAULT_NEWER_INIT=1             transactions against the embedded broker
FAULT_STOP_IN_TRANSACTION=n    SIGSTOP to itself in the n-th transaction, its records and offsets
                               written and its end not asked for
FAULT_FULL_DISK=1              not one more byte goes into any file, the log included
FAULT_CLOCK_JUMPS=1            the wall clock jumps an hour forward at SIGUSR1, and back at SIGUSR2
FAULT_MESSAGES_PER_SECOND=n    an engine that computes nothing and takes its time; 0: as fast as it goes
"""

import contextlib
import os
import resource
import signal
import time
from dataclasses import replace
from typing import Any

import time_machine
from aiokafka import AIOKafkaProducer

from tests.newer_init import newer_init
from worker.benchmarks.null_engine import NullEngine
from worker.cli import main
from worker.inference import load
from worker.inference.engine import HeadOutputs


def _stop_in_transaction(number: int) -> None:
    commit = AIOKafkaProducer.commit_transaction
    count = 0

    async def commit_transaction(self: AIOKafkaProducer) -> None:
        nonlocal count
        count += 1
        if count == number:
            os.kill(os.getpid(), signal.SIGSTOP)
        await commit(self)

    AIOKafkaProducer.commit_transaction = commit_transaction


def _jump_on_signals() -> None:
    """The monotonic clock goes on: the kernel moves only the other one."""
    clock = time_machine.travel(time.time(), tick=True).start()
    signal.signal(signal.SIGUSR1, lambda _number, _frame: clock.shift(3_600))
    signal.signal(signal.SIGUSR2, lambda _number, _frame: clock.shift(-3_600))


class _SlowEngine(NullEngine):
    default_batch_tokens = 4_096  # as on a CPU

    def __init__(self, messages_per_second: float) -> None:
        super().__init__()
        self._rate = messages_per_second

    def run(self, prepared: int) -> HeadOutputs:
        if self._rate:
            time.sleep(prepared / self._rate)
        return super().run(prepared)


def _compute_nothing(messages_per_second: float) -> None:
    load_model = load.load_model

    def with_slow_engine(*arguments: Any, **options: Any) -> load.Model:
        engine: Any = _SlowEngine(messages_per_second)
        return replace(load_model(*arguments, **options), engine=engine)

    load.load_model = with_slow_engine


if __name__ == "__main__":
    if number := int(os.environ.get("FAULT_STOP_IN_TRANSACTION", "0")):
        _stop_in_transaction(number)
    if os.environ.get("FAULT_FULL_DISK"):
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    if os.environ.get("FAULT_CLOCK_JUMPS"):
        _jump_on_signals()
    if rate := os.environ.get("FAULT_MESSAGES_PER_SECOND"):
        _compute_nothing(float(rate))
    with newer_init() if os.environ.get("FAULT_NEWER_INIT") else contextlib.nullcontext():
        main()
