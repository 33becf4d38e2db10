"""Which signals a reader wants."""

from typing import Annotated, Final

from fastapi import Query
from pydantic import StringConstraints

from schemas.labels import Action, Emotion, Sentiment
from worker.signal_filter import SignalFilter

SYMBOL: Final = r"^[0-9A-Za-z._-]{1,32}$"
"""Symbols as a catalogue may have them."""

Coin = Annotated[str, StringConstraints(pattern=SYMBOL)]
Score = Annotated[float, Query(ge=0.0, le=1.0)]


def signal_filter(  # noqa: PLR0917 - a query has names
    coin: Annotated[list[Coin], Query(description="Only signals that name one of these symbols.")] = [],  # noqa: B006
    sentiment: Annotated[list[Sentiment], Query(description="Only these.")] = [],  # noqa: B006
    action: Annotated[list[Action], Query(description="Only these.")] = [],  # noqa: B006
    emotion: Annotated[list[Emotion], Query(description="Only signals that show one of these.")] = [],  # noqa: B006
    min_certainty: Score = 0.0,
    min_relevance: Score = 0.0,
) -> SignalFilter:
    """The filter that a request's query names; a parameter may be given several times."""
    return SignalFilter(
        coins=frozenset(coin) or None,
        sentiments=frozenset(sentiment) or None,
        actions=frozenset(action) or None,
        emotions=frozenset(emotion) or None,
        min_certainty=min_certainty,
        min_relevance=min_relevance,
    )
