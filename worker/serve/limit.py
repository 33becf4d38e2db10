"""How many streams one client may have open."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager


class StreamLimit:
    """Streams that one client has open."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._open: Counter[str] = Counter()

    def full(self, client: str) -> bool:
        """Whether it may open no more."""
        return self._open[client] >= self._most if client in self._open else False

    @contextmanager
    def one(self, client: str) -> Iterator[None]:
        """A stream, for as long as the block lasts."""
        self._open[client] += 1
        try:
            yield
        finally:
            self._open[client] -= 1
            if not self._open[client]:
                del self._open[client]
