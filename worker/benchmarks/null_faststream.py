"""The null-engine job in FastStream: batch subscriber, batch publish, offsets committed after it."""

import asyncio
from typing import Any

from schemas.messages import RawMessage
from schemas.signals import CryptoSignal
from worker.benchmarks.null_job import Meter, NullJob, signal_of

_BATCH_RECORDS = 1_000
_BATCH_BYTES = 2_000_000  # a batch that does not fit is an error of publish_batch


async def run(job: NullJob) -> None:
    """Classify all messages of the job, and print the measurement."""
    from faststream import AckPolicy
    from faststream.kafka import KafkaBroker, KafkaPublishMessage

    def judged(message: RawMessage) -> CryptoSignal | dict[str, Any]:
        signal = signal_of(message)
        return CryptoSignal.model_validate(signal) if job.validated else signal

    done = asyncio.Event()
    count = 0
    broker = KafkaBroker(
        job.bootstrap_servers,
        acks="all",
        max_batch_size=_BATCH_BYTES,
        max_request_size=_BATCH_BYTES,
        logger=None,
    )

    @broker.subscriber(
        job.raw,
        batch=True,
        group_id=job.group,
        auto_offset_reset="earliest",
        max_records=_BATCH_RECORDS,
        fetch_max_wait_ms=20,
        ack_policy=AckPolicy.NACK_ON_ERROR,
    )
    async def classify(messages: list[RawMessage]) -> None:
        nonlocal count
        meter.first_record()
        await broker.publish_batch(
            *(KafkaPublishMessage(judged(m), key=(m.id or "").encode()) for m in messages),
            topic=job.signals,
        )
        count += len(messages)
        if count >= job.messages:
            done.set()

    meter = Meter()
    async with broker:
        await broker.start()
        await done.wait()
        meter.print(count)


def main() -> None:
    """Entry point of the process."""
    import uvloop

    uvloop.run(run(NullJob.from_command_line()))


if __name__ == "__main__":
    main()
