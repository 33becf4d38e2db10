"""Progress, or a known reason for none: else not ready, and after a limit the end.

An aiokafka consumer can hang without a sign after a broker's restart, an engine in its driver: the
process looks alive, and only the missing progress tells.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from time import monotonic
from typing import Final

from worker.errors import KbertError
from worker.telemetry import metrics
from worker.telemetry.health import HEALTH

_OFTEN: Final = 1.0
_SELDOM: Final = 5.0


class StalledError(KbertError):
    """Nothing moves, and it is not known that there is nothing to do."""


@dataclass(frozen=True, slots=True)
class Look:
    """What one look at a part shows."""

    moved: int
    """Grows while anything moves."""
    idle: bool
    """Whether it is known that nothing waits."""
    unfinished: int = 0
    """Records read and not finished."""
    problem: str | None = None
    """What the part lacks to work, in words for an operator."""
    excused: bool = False
    """Whether the problem is another's, so that starting this process anew would mend nothing."""


async def watch(name: str, limit: float, look: Callable[[float], Awaitable[Look]]) -> None:
    """Look every few seconds, report to the probes, and fail after ``limit`` seconds without progress.

    Args:
        name: of the part.
        limit: ``source.stall_limit``; a quarter of it without progress makes the part not ready.
        look: given the seconds in which it has to answer.

    Raises:
        StalledError: nothing has moved for that long.
    """
    interval = min(limit / 8, _SELDOM)
    moved_at, before = monotonic(), -1
    with HEALTH.part(name) as report:
        while True:
            seen = await look(interval)
            if seen.moved != before or seen.excused or (seen.idle and seen.problem is None):
                moved_at, before = monotonic(), seen.moved
            stalled = monotonic() - moved_at
            metrics.STALLED_SECONDS.labels(name).set(stalled)
            slow = f"nothing has moved for {stalled:.0f} s" if stalled > limit / 4 else None
            problem = seen.problem or slow
            report(problem)
            metrics.READY.labels(name).set(problem is None)
            if stalled > limit:
                reason = f"; {seen.problem}" if seen.problem else ""
                raise StalledError(
                    f"Nothing has moved for {stalled:.0f} s (source.stall_limit={limit:g}) and "
                    f"{seen.unfinished} records are unfinished{reason}: "
                    "the worker stops, to be started anew."
                )
            await asyncio.sleep(interval if problem is None else min(interval, _OFTEN))
