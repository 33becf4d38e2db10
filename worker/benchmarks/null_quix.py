"""The null-engine job in Quix Streams: row by row, signals and offsets at the checkpoint."""

from typing import Any

from schemas.messages import RawMessage
from schemas.signals import CryptoSignal
from worker.benchmarks.null_job import Meter, NullJob, signal_of


def run(job: NullJob) -> None:
    """Classify all messages of the job, and print the measurement."""
    from quixstreams import Application

    count = 0

    def validate(value: bytes) -> RawMessage:
        meter.first_record()
        return RawMessage.model_validate_json(value)

    def classify(message: RawMessage) -> dict[str, Any]:
        nonlocal count
        count += 1
        if count >= job.messages:
            app.stop()
        signal = signal_of(message)
        if job.validated:
            return CryptoSignal.model_validate(signal).model_dump(mode="json")
        for name in ("published_at", "processed_at"):  # its JSON serialiser takes no times
            signal[name] = signal[name].isoformat()
        return signal

    app = Application(
        broker_address=job.bootstrap_servers,
        consumer_group=job.group,
        auto_offset_reset="earliest",
        commit_interval=1.0,
        auto_create_topics=False,
        loglevel=None,
        # The embedded broker's answer to librdkafka's idempotence is not Kafka's; off for all sides there.
        producer_extra_config={"acks": "all", "enable.idempotence": False, "linger.ms": 20},
        consumer_extra_config={"fetch.wait.max.ms": 20},
    )
    raw = app.topic(job.raw, value_deserializer="bytes")
    signals = app.topic(job.signals, value_serializer="json", key_serializer="str")
    frame = app.dataframe(raw).apply(validate).apply(classify)
    frame.to_topic(signals, key=lambda signal: signal["id"])
    meter = Meter()
    app.run()  # `stop` ends it with a checkpoint: signals flushed, offsets committed
    meter.print(count)


if __name__ == "__main__":
    run(NullJob.from_command_line())
