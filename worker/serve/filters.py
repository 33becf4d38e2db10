"""Which signals a reader wants."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Annotated, Final

from fastapi import Query
from pydantic import StringConstraints

from schemas.labels import Action, Sentiment
from schemas.signals import CryptoSignal

SYMBOL: Final = r"^[0-9A-Za-z._-]{1,32}$"
"""Symbols as a catalogue may have them."""

Coin = Annotated[str, StringConstraints(pattern=SYMBOL)]
Score = Annotated[float, Query(ge=0.0, le=1.0)]


@dataclass(frozen=True, slots=True)
class SignalFilter:
    """Every condition has to hold; an empty set is no condition."""

    coins: frozenset[str] = frozenset()
    sentiments: frozenset[str] = frozenset()
    actions: frozenset[str] = frozenset()
    min_certainty: float = 0.0
    min_relevance: float = 0.0

    def passes(self, signal: CryptoSignal) -> bool:
        """Whether the signal is wanted."""
        return (
            (not self.coins or not self.coins.isdisjoint(signal.coins))
            and (not self.sentiments or signal.sentiment_strength in self.sentiments)
            and (not self.actions or signal.action_signal in self.actions)
            and signal.certainty >= self.min_certainty
            and signal.relevance >= self.min_relevance
        )

    def names(self, symbols: Collection[str]) -> bool:
        """Whether a change of these symbols is wanted."""
        return not self.coins or not self.coins.isdisjoint(symbols)


def signal_filter(
    coin: Annotated[list[Coin], Query(description="Only signals that name one of these symbols.")] = [],  # noqa: B006
    sentiment: Annotated[list[Sentiment], Query(description="Only these.")] = [],  # noqa: B006
    action: Annotated[list[Action], Query(description="Only these.")] = [],  # noqa: B006
    min_certainty: Score = 0.0,
    min_relevance: Score = 0.0,
) -> SignalFilter:
    """The filter that a request's query names; a parameter may be given several times."""
    return SignalFilter(
        frozenset(coin), frozenset(sentiment), frozenset(action), min_certainty, min_relevance
    )
