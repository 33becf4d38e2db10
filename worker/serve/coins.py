"""Routes of coins and recent signals: JSON out of Redis and memory."""

import asyncio
import gzip
import re
from typing import Annotated, Any, Final, Literal

from fastapi import APIRouter, Depends, HTTPException, Path, Query, Request, Response
from pydantic import BeforeValidator

from schemas.aggregates import Series
from schemas.times import UtcDatetime
from schemas.windows import MARKET, Window
from worker.aggregates.series import SeriesError
from worker.serve.answers import (
    BoardAnswer,
    CoinAnswer,
    ErrorAnswer,
    NamedRow,
    RecentAnswer,
    Sort,
    names,
    sorted_rows,
)
from worker.serve.filters import SYMBOL, known_names, signal_filter
from worker.serve.state import ServeState
from worker.signal_filter import SignalFilter

Symbol = Annotated[str, Path(pattern=SYMBOL, description="Ticker, or MARKET.")]
Metric = Literal[
    "messages",
    "sentiment_index",
    "action_balance",
    "certainty",
    "relevance",
    "toxicity",
    "dispersion",
    "sentiment",
    "action",
    "emotion",
]


def _rfc3339(value: object) -> object:
    if isinstance(value, str) and not _DATE.match(value):  # pydantic would take a bare number as an epoch
        raise ValueError("a time is written as 2026-01-05T09:30:00Z")
    return value


def _takes_gzip(accepted: list[str]) -> bool:
    """Whether Accept-Encoding names gzip, and not with a weight of 0 (RFC 9110, 12.5.3)."""
    codings = (coding.replace(" ", "").lower().partition(";") for coding in ",".join(accepted).split(","))
    return any(name == "gzip" and not re.fullmatch(r"q=0(\.0*)?", weight) for name, _, weight in codings)


_DATE: Final = re.compile(r"\d{4}-\d\d-\d\d[Tt ]")
Moment = Annotated[UtcDatetime, BeforeValidator(_rfc3339)]
Wanted = Annotated[SignalFilter, Depends(signal_filter)]

_NOT_THERE: Final[dict[int | str, dict[str, Any]]] = {
    404: {"model": ErrorAnswer, "description": "No such coin."},
}
_NOT_KEPT: Final[dict[int | str, dict[str, Any]]] = {
    409: {"model": ErrorAnswer, "description": "The kept buckets cannot answer it; says what they can."},
}
_REDIS_GONE: Final[dict[int | str, dict[str, Any]]] = {
    503: {"model": ErrorAnswer, "description": "Redis does not answer."},
}


def coin_routes(state: ServeState) -> APIRouter:
    """Everything below ``/v1`` that is plain JSON."""
    router = APIRouter(prefix="/v1", tags=["coins"], dependencies=[Depends(known_names)])

    @router.get("/coins", response_model=BoardAnswer, responses=_REDIS_GONE)
    async def list_coins(request: Request, window: Window = "1h", sort: Sort = "volume") -> Response:
        """All coins over one window. An answer is at most 5 s old; `as_of` says when it was made."""
        board = await state.boards.get(window, lambda: state.board(window))
        if sort not in board.answers:
            answer = BoardAnswer(
                window=window,
                sort=sort,
                as_of=board.as_of,
                coins=[_named(state, row) for row in sorted_rows(board.rows, sort)],
            )
            board.answers[sort] = answer.model_dump_json().encode()
        varies = {"Vary": "Accept-Encoding"}
        if not _takes_gzip(request.headers.getlist("accept-encoding")):
            return _json(board.answers[sort], varies)
        if sort not in board.gzipped:
            # A page reads it every 1.5 s: 885 coins are 805 KB, packed about a tenth, in 8 ms of a thread.
            board.gzipped[sort] = await asyncio.to_thread(gzip.compress, board.answers[sort], 5, mtime=0)
        return _json(board.gzipped[sort], varies | {"Content-Encoding": "gzip"})

    @router.get("/coins/{symbol}", response_model=CoinAnswer, responses=_NOT_THERE | _REDIS_GONE)
    async def show_coin(symbol: Symbol) -> Response:
        """One coin over every window."""
        coin = await state.coins.get(symbol, lambda: state.aggregates.get(symbol))
        if coin.freshness is None and not _known(state, symbol):
            raise HTTPException(404, f"no coin has the symbol {symbol}")
        korean, english = names(state.catalogue, symbol)
        answer = CoinAnswer.model_construct(**vars(coin), korean=korean, english=english)
        return _json(answer.model_dump_json().encode())

    @router.get("/coins/{symbol}/series", response_model=Series, responses=_NOT_KEPT | _REDIS_GONE)
    async def show_series(  # noqa: PLR0917 - a query has names
        symbol: Symbol,
        metric: Annotated[
            list[Metric], Query(description="May be given several times; classes give a column each.")
        ] = ["sentiment_index", "messages"],  # noqa: B006
        window: Window = "1h",
        since: Annotated[Moment | None, Query(alias="from", description="First point.")] = None,
        until: Annotated[Moment | None, Query(alias="to", description="Last point; now by default.")] = None,
        step: Annotated[
            int | None,
            Query(ge=60, le=604_800, description="Seconds; some 200 points by default."),
        ] = None,
    ) -> Response:
        """Rolling windows over time, from minute buckets (25 h back) or hour buckets (8 d back)."""
        try:
            series = await state.series.get(
                (symbol, tuple(metric), window, since, until, step),
                lambda: state.aggregates.series(symbol, metric, window, since=since, until=until, step=step),
            )
        except SeriesError as error:
            raise HTTPException(409, str(error)) from error
        return _json(series.model_dump_json().encode())

    @router.get("/signals/recent", response_model=RecentAnswer, tags=["signals"])
    async def recent_signals(wanted: Wanted, limit: Annotated[int, Query(ge=1, le=1_000)] = 100) -> Response:
        """The latest signals that pass, newest first; of a single coin its last 100 at most."""
        return _json(b'{"signals":[' + b",".join(state.recent.find(wanted, limit)) + b"]}")

    return router


def _named(state: ServeState, row: Any) -> NamedRow:
    korean, english = names(state.catalogue, row.symbol)
    # Its parts are checked models; validating 280 rows again took longer than making them.
    return NamedRow.model_construct(**vars(row), korean=korean, english=english)


def _known(state: ServeState, symbol: str) -> bool:
    return symbol == MARKET or symbol in state.catalogue.coins


def _json(body: bytes, headers: dict[str, str] | None = None) -> Response:
    return Response(body, headers=headers, media_type="application/json")
