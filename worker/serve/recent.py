"""The latest signals, in memory."""

from collections import deque

from schemas.signals import CryptoSignal
from worker.signal_filter import SignalFilter

_OF_A_COIN = 100


class RecentSignals:
    """The latest signals of all, and of each coin, so that a quiet coin has some too."""

    def __init__(self, size: int) -> None:
        self._all: deque[tuple[CryptoSignal, bytes]] = deque(maxlen=size)
        self._of_coin: dict[str, deque[tuple[CryptoSignal, bytes]]] = {}

    def add(self, signal: CryptoSignal, body: bytes) -> None:
        """The newest signal, and its JSON."""
        entry = (signal, body)
        self._all.append(entry)
        for symbol in signal.coins:
            self._of_coin.setdefault(symbol, deque(maxlen=_OF_A_COIN)).append(entry)

    def find(self, wanted: SignalFilter, limit: int) -> list[bytes]:
        """JSON of signals that pass, newest first."""
        found: list[bytes] = []
        for signal, body in self._candidates(wanted):
            if wanted.passes(signal):
                found.append(body)
                if len(found) >= limit:
                    break
        return found

    def _candidates(self, wanted: SignalFilter) -> list[tuple[CryptoSignal, bytes]]:
        entries = self._all
        if wanted.coins is not None and len(wanted.coins) == 1:
            (symbol,) = wanted.coins
            entries = self._of_coin.get(symbol, deque())
        # What was read back at the start came partition by partition, not in the order of time.
        return sorted(entries, key=lambda entry: entry[0].processed_at, reverse=True)
