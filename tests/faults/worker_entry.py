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
from collections.abc import Sequence

import time_machine
from aiokafka import AIOKafkaProducer

from tests.newer_init import newer_init
from worker.benchmarks.null_engine import NullEngine
from worker.cli import main
from worker.inference.engine import HeadOutputs
from worker.inference.tokenising import EncodedText


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


def _compute_nothing(messages_per_second: float) -> None:
    from worker.inference.torch_engine import TorchEngine

    engine = NullEngine()

    def prepare(_: TorchEngine, batch: Sequence[EncodedText]) -> int:
        return engine.prepare(batch)

    def run(_: TorchEngine, prepared: int) -> HeadOutputs:
        if messages_per_second:
            time.sleep(prepared / messages_per_second)
        return engine.run(prepared)

    TorchEngine.prepare = prepare  # type: ignore[method-assign,assignment]
    TorchEngine.run = run  # type: ignore[method-assign,assignment]


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
