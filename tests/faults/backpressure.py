"""A flood into a worker that cannot keep up: what does not fit stays in Kafka, and its memory stays flat."""

import json
from functools import partial
from time import monotonic
from typing import Final

from tests.faults import load
from tests.faults.scenarios import Field, Row, Scenario
from tests.kafka_io import produce
from tests.processes import KbertProcess
from tests.waiting import eventually
from worker.settings import BatchSettings, Settings

_RATE: Final = 50
"""Messages a second."""
_TEXT: Final = "비트코인 오늘 떡상 간다 가즈아 " * 6
_WARM_UP: Final = 200
_MIB: Final = 2**20
_CHUNK: Final = 10_000


async def _flood(place: Field, rounds: int, *, messages: int, seconds: float, most: int) -> Row:
    """A worker of 50 messages a second has all of them before it, and is watched for so long."""
    settings = await place.settings()
    settings = settings.model_copy(update={"batch": BatchSettings()})
    count, growth = 0, 0
    for _ in range(rounds):
        growth = max(growth, await _watch(place, settings, seconds, count, messages))
        assert growth <= most * _MIB, f"memory grew by {growth} bytes"
        count += _WARM_UP + messages
        with place.worker(settings, FAULT_MESSAGES_PER_SECOND="0"):
            # 300 s were too short for 200,000 on two cores.
            await load.all_there(settings, count, timeout=300 + messages / 200)
            await load.committed_to_the_end(settings, count)
    note = f"{_RATE} a second for {seconds:g} s; memory grew by {growth / _MIB:.1f} MiB, no rebalance"
    return Row("flood into a slow worker", rounds, await load.tally(settings, count), None, note)


async def _feed(settings: Settings, start: int, count: int) -> None:
    for first in range(start, start + count, _CHUNK):
        numbers = range(first, min(first + _CHUNK, start + count))
        values = [json.dumps({"id": f"m{n}", "text": _TEXT}).encode() for n in numbers]
        await produce(
            settings.kafka.bootstrap_servers, settings.topics.raw, values, partitions=load.PARTITIONS
        )


async def _watch(place: Field, settings: Settings, seconds: float, start: int, messages: int) -> int:
    """Bytes by which the worker's resident memory grew after its warm-up."""
    with place.worker(settings, FAULT_MESSAGES_PER_SECOND=str(_RATE)) as worker:
        await _feed(settings, start, _WARM_UP)

        async def warm() -> bool:
            return await load.outcomes(settings) >= start + _WARM_UP

        await eventually(warm, timeout=120, interval=0.1, what="the warm-up")
        level = worker.resident_bytes()
        await _feed(settings, start + _WARM_UP, messages)
        highest = await _highest(worker, seconds)
        done = await load.outcomes(settings) - start - _WARM_UP
        assert 0 < done < messages / 2, f"{done} of {messages} signals: the worker was not slow"
        assert load.events([worker.log], "partitions.assigned") == 1, "the group was formed anew"
        await load.ended(worker)
        assert not load.events([worker.log], "partitions.given_up"), "work was given up"
    return highest - level


async def _highest(worker: KbertProcess, seconds: float) -> int:
    """Bytes of resident memory, the most in this time."""
    until, highest = monotonic() + seconds, 0
    while monotonic() < until:
        highest = max(highest, worker.resident_bytes())
        await load.pause(0.1)
    return highest


# ``most``: MiB over the level after warm-up. Read whole, the floods would take ten times and twice that.
flood: Final[Scenario] = partial(_flood, messages=200_000, seconds=60.0, most=64)
short_flood: Final[Scenario] = partial(_flood, messages=12_000, seconds=8.0, most=16)
