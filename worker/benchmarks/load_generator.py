"""An open-loop load: arrivals planned ahead by a Poisson process, sent when due whatever comes back.

A message's key is its planned arrival on the system's monotonic clock (ns). Latency counts from there: a
generator that falls behind, or a broker that makes it wait, makes the measured latency longer, not the load
smaller (no coordinated omission).
"""

import asyncio
import json
import random
import sys
from dataclasses import asdict, dataclass
from itertools import accumulate
from time import monotonic_ns
from typing import Final

from worker.benchmarks.raw_topic import payloads
from worker.settings import KafkaSettings, SinkSettings, load_settings
from worker.sink.producer import KafkaSink, OutRecord

_LEAD_NS: Final = 200_000_000


@dataclass(frozen=True)
class Load:
    """What is sent, and where."""

    bootstrap_servers: str | None
    """Of a broker without TLS or SASL; None is the Kafka of the settings."""
    topic: str
    per_second: float
    messages: int
    seed: int

    def to_argument(self) -> str:
        """For the command line of the generator."""
        return json.dumps(asdict(self))


def planned_arrivals(load: Load, start_ns: int) -> list[int]:
    """Arrival times (ns), ascending."""
    drawn = random.Random(load.seed)
    gaps = (drawn.expovariate(load.per_second) * 1e9 for _ in range(load.messages))
    return [start_ns + round(at) for at in accumulate(gaps)]


async def run(load: Load) -> None:
    """Send the load."""
    values = payloads(load.messages)
    kafka = (
        load_settings().kafka
        if load.bootstrap_servers is None
        else KafkaSettings(bootstrap_servers=load.bootstrap_servers, idempotent_producer=False)
    )
    sink = KafkaSink(kafka, SinkSettings())
    await sink.start()
    try:
        arrivals = planned_arrivals(load, monotonic_ns() + _LEAD_NS)
        sent = 0
        while sent < load.messages:
            if (early := arrivals[sent] - monotonic_ns()) > 0:
                await asyncio.sleep(early / 1e9)
            now = monotonic_ns()
            due: list[OutRecord] = []
            while sent < load.messages and arrivals[sent] <= now:
                due.append(OutRecord(load.topic, b"%d" % arrivals[sent], values[sent]))
                sent += 1
            await sink.send(due)
    finally:
        await sink.stop()


def main() -> None:
    """Entry point of the process."""
    import uvloop

    uvloop.run(run(Load(**json.loads(sys.argv[1]))))


if __name__ == "__main__":
    main()
