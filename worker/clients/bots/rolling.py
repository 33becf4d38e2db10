"""A coin's sentiment index over the last minutes, for bots that take signal after signal."""

from collections import deque
from typing import Final

_EMPTY: Final = 1e-9


class RollingIndex:
    """sum(weight * polarity) / sum(weight) of the signals published within a window.

    Args:
        seconds: of the window.
        least: signals below which there is no index.
    """

    def __init__(self, seconds: float, least: int = 1) -> None:
        self._seconds = seconds
        self._least = least
        self._signals: deque[tuple[float, float, float]] = deque()

    def add(self, published: float, weight: float, polarity: float) -> None:
        """Take a signal, in the order in which signals become known; seconds since 1970."""
        self._signals.append((published, weight, polarity))

    def at(self, now: float) -> float | None:
        """The index, -1..1; None where too few signals or no weight are in the window."""
        oldest = now - self._seconds
        kept = [signal for signal in self._signals if signal[0] > oldest]
        if len(kept) < len(self._signals):
            self._signals = deque(kept)
        weight = sum(signal[1] for signal in kept)
        if len(kept) < self._least or weight < _EMPTY:
            return None
        return sum(weight * polarity for _, weight, polarity in kept) / weight
