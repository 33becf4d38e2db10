"""Log lines that traffic causes, at a rate that traffic does not change."""

from collections.abc import Callable
from time import monotonic
from typing import Any, Final

import structlog

_SECONDS: Final = 30.0


class Seldom:
    """Says an event once in ``seconds``, with how often it was not said since; metrics have all of them."""

    def __init__(
        self,
        log: structlog.stdlib.BoundLogger,
        seconds: float = _SECONDS,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self._log = log
        self._seconds = seconds
        self._clock = clock
        self._said: dict[str, float] = {}
        self._unsaid: dict[str, int] = {}

    def warning(self, event: str, **fields: Any) -> None:
        """Log a warning, or count it."""
        now = self._clock()
        if now - self._said.get(event, -self._seconds) < self._seconds:
            self._unsaid[event] = self._unsaid.get(event, 0) + 1
            return
        self._said[event] = now
        self._log.warning(event, unsaid=self._unsaid.pop(event, 0), **fields)
