"""``kbert bench soak``: memory and throughput of a worker over a million messages."""

import asyncio
import statistics
import sys
from pathlib import Path
from typing import Any, Final

import orjson

from worker.benchmarks.engine import Report
from worker.benchmarks.machine import describe_host
from worker.benchmarks.null_job import NullJob
from worker.benchmarks.raw_topic import fill, on_broker, payloads, with_own_topics
from worker.benchmarks.resources import resident_bytes
from worker.embedded import EmbeddedKafka
from worker.errors import KbertError
from worker.settings import Settings
from worker.sink.producer import KafkaSink, OutRecord

SPAN: Final = 100_000
_ROOT: Final = Path(__file__).parents[2]
_CHUNK: Final = 5_000
_AHEAD: Final = 40_000
_STALL_SECONDS: Final = 120.0

Sample = dict[str, float]
"""``messages`` done, ``seconds``, ``cpu_seconds`` and ``memory_mb`` of the worker."""


async def bench_soak(
    settings: Settings, *, messages: int = 1_000_000, report: Report | None = None
) -> dict[str, Any]:
    """Run the pipeline around a null engine in a process of its own.

    The raw topic is filled as the worker goes, at most 40,000 messages ahead, so that the broker, which keeps
    everything in memory, is the only thing that grows. The first 100,000 messages are the warm-up.

    Returns:
        ``memory_mb``: ``after_warm_up`` and ``at_the_end``, medians over 100,000 messages each, and their
        ``ratio``; ``throughput``: the ``first`` 100,000 after the warm-up and the ``last``, in messages per
        second of the worker's CPU time, and their ``ratio``; ``by_the_clock`` the same in wall time, which a
        busy neighbour changes; ``samples``; ``broker_mb`` at the end.

    Raises:
        KbertError: the worker ended early, or did nothing for two minutes.
    """
    if messages < 3 * SPAN:
        raise KbertError(f"A soak needs at least {3 * SPAN} messages: a warm-up, a first and a last span.")
    tell = report or (lambda _: None)
    samples: list[Sample] = []
    async with EmbeddedKafka() as kafka:
        mine = with_own_topics(on_broker(settings, kafka.bootstrap_servers))
        await fill(mine, [])
        sink = KafkaSink(mine.kafka, mine.sink)
        await sink.start()
        worker = await _start(mine, messages)
        try:
            fed = 0
            while not samples or samples[-1]["messages"] < messages:
                done = samples[-1]["messages"] if samples else 0
                while fed < messages and fed < done + _AHEAD:
                    await _feed(sink, mine.topics.raw, min(_CHUNK, messages - fed))
                    fed += _CHUNK
                samples.append(await _next_sample(worker))
                tell(f"{samples[-1]['messages']:,} of {messages:,}, {samples[-1]['memory_mb']:.0f} MB")
        finally:
            if worker.returncode is None:
                worker.kill()
                await worker.wait()
            await sink.stop()
        broker_mb = resident_bytes(kafka.pid) / 1e6
    return summary(samples) | {
        "broker_mb": round(broker_mb),
        "machine": describe_host(),
        "samples": samples[:: max(1, len(samples) // 50)],
    }


def summary(samples: list[Sample]) -> dict[str, Any]:
    """Both spans against each other; a sample belongs to the span in which it was taken."""
    end = samples[-1]["messages"]
    first = [s for s in samples if SPAN <= s["messages"] <= 2 * SPAN]
    last = [s for s in samples if s["messages"] >= end - SPAN]
    memory = [statistics.median(s["memory_mb"] for s in span) for span in (first, last)]
    return {
        "messages": round(end),
        "memory_mb": {
            "after_warm_up": memory[0],
            "at_the_end": memory[1],
            "ratio": round(memory[1] / memory[0], 3),
        },
        "throughput": _compared(first, last, "cpu_seconds"),
        "by_the_clock": _compared(first, last, "seconds"),
    }


def _compared(first: list[Sample], last: list[Sample], of: str) -> dict[str, float]:
    rates = [(s[-1]["messages"] - s[0]["messages"]) / (s[-1][of] - s[0][of]) for s in (first, last)]
    return {"first": round(rates[0]), "last": round(rates[1]), "ratio": round(rates[1] / rates[0], 3)}


async def _feed(sink: KafkaSink, topic: str, count: int) -> None:
    await (await sink.send([OutRecord(topic, None, value) for value in payloads(count)])).acknowledged()


async def _start(settings: Settings, messages: int) -> asyncio.subprocess.Process:
    job = NullJob.of(settings, messages, validated=True)
    return await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "worker.benchmarks.null_ours", job.to_argument(), "--samples"),
        cwd=_ROOT,
        stdout=asyncio.subprocess.PIPE,
    )


async def _next_sample(worker: asyncio.subprocess.Process) -> Sample:
    if worker.stdout is None:
        raise KbertError("The worker of the soak has no standard output.")
    async with asyncio.timeout(_STALL_SECONDS):
        line = await worker.stdout.readline()
    if not line:
        raise KbertError("The worker of the soak ended early; its last words are above.")
    sample: Sample = orjson.loads(line)
    return sample
