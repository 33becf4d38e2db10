"""Whether this process works: what its parts say of themselves, and whether its event loop turns.

Parts report from the event loop; the probes are answered by a thread of their own, so that they
answer also when the loop is blocked, and say so.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

_SILENT_SECONDS: Final = 30.0


class Health:
    """What the parts of a process lack; a part that lacks nothing is ready."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._parts: dict[str, str | None] = {}
        self._beat: float | None = None

    @contextmanager
    def part(self, name: str) -> Iterator[Callable[[str | None], None]]:
        """A part for as long as the block lasts; the function takes what it lacks, None for nothing."""
        self._parts[name] = "starting"

        def report(problem: str | None) -> None:
            self._parts[name] = problem

        try:
            yield report
        finally:
            self._parts.pop(name, None)

    def beat(self) -> None:
        """The event loop turns."""
        self._beat = self._clock()

    def alive(self) -> str | None:
        """Why the process should be started anew; None while the event loop turns."""
        if self._beat is None or self._clock() - self._beat < _SILENT_SECONDS:
            return None
        return f"the event loop has not turned for {self._clock() - self._beat:.0f} s"

    def parts(self) -> dict[str, str | None]:
        """What each part lacks."""
        return dict(self._parts)

    def ready(self) -> bool:
        """Whether there are parts, none lacks anything, and the loop turns."""
        parts = self.parts()
        return bool(parts) and not any(parts.values()) and self.alive() is None


HEALTH: Final = Health()
"""That of this process."""
