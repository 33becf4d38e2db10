"""When each message of a replay is due."""

from dataclasses import dataclass, field
from datetime import datetime


@dataclass(slots=True)
class Pace:
    """Seconds from the start at which messages are due, asked for one after another.

    Args:
        speed: how many times faster than they were published; None: as fast as they can be sent.
        rate: messages a second, whenever they were published.
    """

    speed: float | None = None
    rate: float | None = None
    _count: int = field(default=0, init=False)
    _first: datetime | None = field(default=None, init=False)
    _due: float = field(default=0.0, init=False)

    def due(self, published_at: datetime | None) -> float:
        """Never before the message that came before: a file need not be in order of time."""
        if self.rate is not None:
            self._due = self._count / self.rate
        elif self.speed is not None and published_at is not None:
            self._first = self._first or published_at
            self._due = max(self._due, (published_at - self._first).total_seconds() / self.speed)
        self._count += 1
        return self._due
