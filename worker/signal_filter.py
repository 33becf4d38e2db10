"""Which signals a reader wants: of a stream, of the API, of an export."""

from collections.abc import Collection
from dataclasses import dataclass

from schemas.signals import CryptoSignal


@dataclass(frozen=True, slots=True)
class SignalFilter:
    """Every condition has to hold; None is no condition."""

    coins: frozenset[str] | None = None
    sentiments: frozenset[str] | None = None
    actions: frozenset[str] | None = None
    emotions: frozenset[str] | None = None
    min_certainty: float = 0.0
    min_relevance: float = 0.0

    def passes(self, signal: CryptoSignal) -> bool:
        """Whether the signal is wanted; of coins and emotions one is enough."""
        return (
            (self.coins is None or not self.coins.isdisjoint(signal.coins))
            and (self.sentiments is None or signal.sentiment_strength in self.sentiments)
            and (self.actions is None or signal.action_signal in self.actions)
            and (self.emotions is None or not self.emotions.isdisjoint(signal.emotions))
            and signal.certainty >= self.min_certainty
            and signal.relevance >= self.min_relevance
        )

    def names(self, symbols: Collection[str]) -> bool:
        """Whether a change of these symbols is wanted."""
        return self.coins is None or not self.coins.isdisjoint(symbols)
