"""What the API answers, where it is more than a contract of `schemas`."""

from typing import Final, Literal

from pydantic import BaseModel, Field

from schemas.aggregates import BoardRow, CoinAggregates
from schemas.narrative import NarrativeMonth
from schemas.signals import CryptoSignal
from schemas.times import UtcDatetime
from schemas.windows import MARKET, Window
from worker.coins.catalogue import Catalogue

Sort = Literal["volume", "index", "zscore_volume", "zscore_index", "symbol"]

_MARKET_NAMES: Final = ("시장 전체", "Whole market")


class NamedRow(BoardRow):
    """A coin on the board, with its names."""

    korean: str
    english: str


class BoardAnswer(BaseModel):
    """All coins over one window; MARKET stands first."""

    window: Window
    sort: Sort
    as_of: UtcDatetime
    coins: list[NamedRow]


class CoinAnswer(CoinAggregates):
    """One coin over every window, with its names."""

    korean: str
    english: str


class RecentAnswer(BaseModel):
    """The latest signals, newest first."""

    signals: list[CryptoSignal]


class NarrativeAnswer(BaseModel):
    """The monthly narrative index, oldest month first."""

    months: list[NarrativeMonth]


class ErrorAnswer(BaseModel):
    """One sentence."""

    detail: str


class Health(BaseModel):
    """Whether the server works, or what it lacks."""

    status: Literal["ok", "unavailable"]
    detail: str | None = Field(default=None, description="One sentence, where it does not.")


def names(catalogue: Catalogue, symbol: str) -> tuple[str, str]:
    """Korean and English name; the symbol itself where the catalogue has none."""
    if symbol == MARKET:
        return _MARKET_NAMES
    coin = catalogue.coins.get(symbol)
    return (coin.korean, coin.english) if coin is not None else (symbol, symbol)


def sorted_rows(rows: list[BoardRow], sort: Sort) -> list[BoardRow]:
    """MARKET first; then the largest first, what is null last, and symbols from A to Z."""

    def key(row: BoardRow) -> tuple[bool, bool, float, str]:
        value = {
            "volume": float(row.metrics.messages),
            "index": row.metrics.sentiment_index,
            "zscore_volume": row.metrics.zscore_volume,
            "zscore_index": row.metrics.zscore_index,
            "symbol": 0.0,
        }[sort]
        return row.symbol != MARKET, value is None, -(value or 0.0), row.symbol

    return sorted(rows, key=key)
