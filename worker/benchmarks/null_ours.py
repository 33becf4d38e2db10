"""The null-engine job in this project: the pipeline as it ships, around an engine that computes nothing."""

import json
import os
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from time import perf_counter, process_time
from typing import Any, Final

import numpy as np

from schemas.messages import RawMessage
from schemas.signals import ModelInfo
from worker.benchmarks.drain import drain
from worker.benchmarks.null_engine import NullEngine
from worker.benchmarks.null_job import PREDICTION, Meter, NullJob
from worker.benchmarks.resources import resident_bytes
from worker.collector import calm_collector
from worker.inference.engine import HeadOutputs
from worker.inference.tokenising import EncodedText
from worker.settings import (
    KafkaSettings,
    Settings,
    SinkSettings,
    SourceSettings,
    TopicSettings,
    load_settings,
)
from worker.sink.producer import OutRecord
from worker.sink.signals import CryptoSignalBuilder, signal_records
from worker.source.decoding import message_text
from worker.tasks import crypto_classes

_INFO: Final = ModelInfo(name="bench", revision="null")
_SAMPLE_EVERY: Final = 2_500
_TOKENS: Final = EncodedText(np.zeros(23, dtype=np.int32), truncated=False)


class _NullTokeniser:
    """Every text has the same 23 tokens."""

    def encode(self, texts: Sequence[str]) -> list[EncodedText]:
        return [_TOKENS] * len(texts)


@dataclass(frozen=True)
class _NullClassifier:
    tokeniser: _NullTokeniser
    engine: NullEngine
    info: ModelInfo = _INFO
    max_length: int = 200
    default_batch_tokens: int = NullEngine.default_batch_tokens

    def decode(self, outputs: HeadOutputs) -> list[dict[str, Any]]:
        return [PREDICTION] * len(outputs["pred_reg"])


class _NullTask:
    """The crypto task without the tagger: no peer has one."""

    def __init__(self, settings: SinkSettings) -> None:
        self._builder = CryptoSignalBuilder(_INFO, settings)

    def text(self, message: RawMessage) -> str:
        return message_text(message)

    def signal(
        self,
        message: RawMessage,
        *,
        message_id: str,
        published_at: datetime,
        processed_at: datetime,
        prediction: Mapping[str, Any],
        truncated: bool,
    ) -> dict[str, Any]:
        return self._builder.build(
            message,
            message_id=message_id,
            published_at=published_at,
            processed_at=processed_at,
            coins=[],
            prediction=prediction,
            truncated=truncated,
        )

    def classes(self, signals: Sequence[Mapping[str, Any]]) -> Counter[tuple[str, str]]:
        return crypto_classes(signals)

    def records(self, topic: str, signals: Sequence[Mapping[str, Any]]) -> list[OutRecord]:
        return signal_records(topic, signals)


class _Samples:
    """Prints a line of JSON for every 2,500 messages: see ``soak.Sample``."""

    def __init__(self) -> None:
        self._next = 0
        self._start = perf_counter()

    def __call__(self, done: int) -> None:
        if done < self._next:
            return
        self._next = done - done % _SAMPLE_EVERY + _SAMPLE_EVERY
        sample = {
            "messages": done,
            "seconds": perf_counter() - self._start,
            "cpu_seconds": process_time(),
            "memory_mb": resident_bytes(os.getpid()) / 1e6,
        }
        print(json.dumps(sample), flush=True)


def settings_of(job: NullJob) -> Settings:
    """The settings that ship, with the job's broker and topics."""
    return load_settings(
        _env_file=None,
        kafka=KafkaSettings(bootstrap_servers=job.bootstrap_servers, idempotent_producer=False),
        topics=TopicSettings(
            raw=job.raw, signals=job.signals, dead_letter=job.dead_letter, partitions=job.partitions
        ),
        source=SourceSettings(group_id=job.group, fetch_max_wait=0.02),
    )


async def run(job: NullJob) -> None:
    """Classify all messages of the job, and print the measurement."""
    settings = settings_of(job)
    model = _NullClassifier(_NullTokeniser(), NullEngine())
    calm_collector()  # as the worker does when its model is loaded
    meter = Meter()
    look = _Samples() if "--samples" in sys.argv[2:] else lambda _: None
    drained = await drain(settings, model, _NullTask(settings.sink), job.messages, look=look)
    meter.print(drained.messages, drained.seconds)


def main() -> None:
    """Entry point of the process."""
    import uvloop

    from worker.settings import LogSettings
    from worker.telemetry.logs import configure_logging

    configure_logging(LogSettings(level="warning"))
    uvloop.run(run(NullJob.from_command_line()))


if __name__ == "__main__":
    main()
