"""The latest signals, in memory."""

from bisect import insort
from datetime import datetime

from schemas.signals import CryptoSignal
from worker.signal_filter import SignalFilter

_OF_A_COIN = 100

_Entry = tuple[CryptoSignal, bytes]


class RecentSignals:
    """The latest signals of all, and of each coin, so that a quiet coin has some too.

    The latest by ``processed_at``: what is read back at a start comes partition by partition.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._all: list[_Entry] = []
        """Oldest first, as those of each coin."""
        self._of_coin: dict[str, list[_Entry]] = {}

    def add(self, signal: CryptoSignal, body: bytes) -> None:
        """A signal and its JSON, in any order of time."""
        entry = (signal, body)
        _keep(self._all, entry, self._size)
        for symbol in signal.coins:
            _keep(self._of_coin.setdefault(symbol, []), entry, _OF_A_COIN)

    def find(self, wanted: SignalFilter, limit: int) -> list[bytes]:
        """JSON of signals that pass, newest first."""
        found: list[bytes] = []
        for signal, body in reversed(self._candidates(wanted)):
            if wanted.passes(signal):
                found.append(body)
                if len(found) >= limit:
                    break
        return found

    def _candidates(self, wanted: SignalFilter) -> list[_Entry]:
        if wanted.coins is not None and len(wanted.coins) == 1:
            (symbol,) = wanted.coins
            return self._of_coin.get(symbol, [])
        return self._all


def _keep(entries: list[_Entry], entry: _Entry, size: int) -> None:
    """Put it in its place and drop the oldest beyond ``size``."""
    insort(entries, entry, key=_processed_at)
    if len(entries) > size:
        del entries[0]


def _processed_at(entry: _Entry) -> datetime:
    return entry[0].processed_at
