"""What a query may say, and which signals a reader wants by it."""

from typing import Annotated, Final

from fastapi import Query
from fastapi.dependencies.models import Dependant
from fastapi.exceptions import RequestValidationError, WebSocketRequestValidationError
from pydantic import StringConstraints
from starlette.requests import HTTPConnection

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
        coins=frozenset(symbol.upper() for symbol in coin) or None,
        sentiments=frozenset(sentiment) or None,
        actions=frozenset(action) or None,
        emotions=frozenset(emotion) or None,
        min_certainty=min_certainty,
        min_relevance=min_relevance,
    )


async def known_names(connection: HTTPConnection) -> None:
    """Dependency of a router: refuse query names that the route does not know.

    A bot that wrote `min-certainty` was otherwise sent every signal, with 200.

    Raises:
        RequestValidationError: a name is unknown; as WebSocketRequestValidationError on a WebSocket.
    """
    known = _query_names(connection.scope["route"].dependant)
    unknown = [name for name in dict.fromkeys(connection.query_params) if name not in known]
    if not unknown:
        return
    may = f"it takes {', '.join(known)}" if known else "it takes no query"
    errors = [
        {"type": "extra_forbidden", "loc": ("query", name), "msg": f"{name!r} is unknown here: {may}"}
        for name in unknown
    ]
    raise (RequestValidationError if connection.scope["type"] == "http" else WebSocketRequestValidationError)(
        errors
    )


def _query_names(dependant: Dependant) -> list[str]:
    """Names as they stand in a query, of a route and of what it depends on."""
    own = [field.alias for field in dependant.query_params]
    return own + [name for one in dependant.dependencies for name in _query_names(one)]
