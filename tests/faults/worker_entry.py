"""``kbert`` as the fault tests start it: ``python -m tests.faults.worker_entry run --only worker``.

FAULT_NEWER_INIT=1            transactions against the embedded broker
FAULT_STOP_IN_TRANSACTION=n   SIGSTOP to itself in the n-th transaction, its records and offsets
                              written and its end not asked for
"""

import contextlib
import os
import signal

from aiokafka import AIOKafkaProducer

from tests.newer_init import newer_init
from worker.cli import main


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


if __name__ == "__main__":
    if number := int(os.environ.get("FAULT_STOP_IN_TRANSACTION", "0")):
        _stop_in_transaction(number)
    with newer_init() if os.environ.get("FAULT_NEWER_INIT") else contextlib.nullcontext():
        main()
