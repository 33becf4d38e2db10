"""The coins that can be named: the built-in catalogue, and a user's own names on top of it."""

import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from enum import IntEnum
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from schemas.windows import MARKET, SYMBOL
from worker.errors import ConfigurationError

_BUILT_IN = Path(__file__).with_name("catalogue.toml")
_NAME = re.compile(r"[가-힣A-Za-z0-9]+(?:[ .-][가-힣A-Za-z0-9]+)*")


class CatalogueError(ConfigurationError):
    """A catalogue file that cannot be used; the message names the file and the key."""


class Certainty(IntEnum):
    """How far a name alone says that the coin is meant."""

    SURE = 0
    LIKELY = 1
    LEANING = 2
    AMBIGUOUS = 3
    COMMON = 4


@dataclass(frozen=True, slots=True)
class Coin:
    """One coin and everything that people call it.

    ``names`` mean the coin wherever they stand, ``likely`` names unless the words
    around them say otherwise, ``leaning`` ones at the head of a post, too, and elsewhere
    only among market words, ``ambiguous`` ones (everyday words) only among market
    words, ``common`` ones (things that prices and buying are said of too) only among
    words of the coin market. Words in Latin letters count in any case under ``names`` and as written or
    in capitals elsewhere. ``tickers`` are further tickers, former ones too. With
    ``explicit`` the ticker counts only as ``$X``, in a pair or behind the coin's name.
    ``against`` are words that show the everyday meaning when they stand close by, with ``=`` before them
    only as they are (``=박스`` is not 박스권);
    ``muted`` display names are shown but not looked for.
    """

    symbol: str
    korean: str
    english: str
    names: tuple[str, ...] = ()
    likely: tuple[str, ...] = ()
    leaning: tuple[str, ...] = ()
    ambiguous: tuple[str, ...] = ()
    common: tuple[str, ...] = ()
    tickers: tuple[str, ...] = ()
    explicit: bool = False
    against: tuple[str, ...] = ()
    muted: frozenset[str] = frozenset()

    def spellings(self) -> Iterator[tuple[str, Certainty]]:
        """Every name with its certainty; the display names are names like others, the symbol a ticker."""
        unsure = {*self.likely, *self.leaning, *self.ambiguous, *self.common, *self.muted}
        shown = (
            name for name in (self.korean, self.english) if name != self.symbol and _NAME.fullmatch(name)
        )
        for name in dict.fromkeys((*shown, *self.names)):
            if name not in unsure:
                yield name, Certainty.SURE
        for name in self.likely:
            yield name, Certainty.LIKELY
        for name in self.leaning:
            yield name, Certainty.LEANING
        for name in self.ambiguous:
            yield name, Certainty.AMBIGUOUS
        for name in self.common:
            yield name, Certainty.COMMON


@dataclass(frozen=True, slots=True)
class Catalogue:
    """All coins by symbol, in the order in which a later one wins a name from an earlier one."""

    coins: Mapping[str, Coin] = field(default_factory=dict)
    ignored: frozenset[str] = frozenset()
    """Words and phrases that are no coin, though they hold a coin's name."""

    def __contains__(self, symbol: object) -> bool:
        return symbol in self.coins

    def __getitem__(self, symbol: str) -> Coin:
        return self.coins[symbol]

    def __iter__(self) -> Iterator[Coin]:
        return iter(self.coins.values())

    def __len__(self) -> int:
        return len(self.coins)


class _Entry(BaseModel):
    """What a file may say of one coin."""

    model_config = ConfigDict(extra="forbid", strict=True)

    korean: str | None = Field(default=None, min_length=1, max_length=60)
    english: str | None = Field(default=None, min_length=1, max_length=60)
    names: list[str] = Field(default_factory=list)
    likely: list[str] = Field(default_factory=list)
    leaning: list[str] = Field(default_factory=list)
    ambiguous: list[str] = Field(default_factory=list)
    common: list[str] = Field(default_factory=list)
    tickers: list[str] = Field(default_factory=list)
    explicit: bool | None = None
    against: list[str] = Field(default_factory=list)


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    coins: dict[str, _Entry] = Field(default_factory=dict)
    ignore: list[str] = Field(default_factory=list)


def load_catalogue(user_file: Path | None = None) -> Catalogue:
    """Return the built-in catalogue, with a user's TOML file merged into it.

    Raises:
        CatalogueError: the file is missing, is not TOML, or holds a key, symbol or
            name that cannot be used.
    """
    built_in = _built_in()
    if user_file is None:
        return built_in
    return _merged(built_in, _read(user_file))


@cache
def _built_in() -> Catalogue:
    return _merged(Catalogue(), _read(_BUILT_IN))


def _read(path: Path) -> _File:
    try:
        raw: dict[str, Any] = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise CatalogueError(f"coin catalogue {path} cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise CatalogueError(f"coin catalogue {path} is not TOML in UTF-8: {error}") from error
    try:
        parsed = _File.model_validate(raw)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        key = ".".join(str(part) for part in first["loc"])
        raise CatalogueError(f"coin catalogue {path}, key {key}: {first['msg']}") from error
    for symbol, entry in parsed.coins.items():
        _check(path, symbol, entry)
    for name in parsed.ignore:
        _check_name(path, "ignore", name)
    return parsed


def _check(path: Path, symbol: str, entry: _Entry) -> None:
    if not SYMBOL.fullmatch(symbol):
        raise CatalogueError(
            f"coin catalogue {path}, key coins.{symbol}: a symbol is 1 to 15 capital letters or digits"
        )
    if symbol == MARKET:
        raise CatalogueError(
            f"coin catalogue {path}, key coins.{symbol}: all coins together have this name: choose another"
        )
    seen: dict[str, str] = {}
    for key in ("names", "likely", "leaning", "ambiguous", "common"):
        for name in getattr(entry, key):
            _check_name(path, f"coins.{symbol}.{key}", name)
            if seen.setdefault(name, key) != key:
                raise CatalogueError(
                    f"coin catalogue {path}, key coins.{symbol}.{key}: {name!r} stands under {seen[name]} too"
                )
    for ticker in entry.tickers:
        if not SYMBOL.fullmatch(ticker):
            raise CatalogueError(
                f"coin catalogue {path}, key coins.{symbol}.tickers: "
                f"{ticker!r} is not 1 to 15 capital letters or digits"
            )
    for word in entry.against:
        if not word.removeprefix("=").strip():
            raise CatalogueError(f"coin catalogue {path}, key coins.{symbol}.against: an empty word")


def _check_name(path: Path, key: str, name: str) -> None:
    if not _NAME.fullmatch(name) or len(name) > 60:
        raise CatalogueError(
            f"coin catalogue {path}, key {key}: {name!r} is not 1 to 60 letters and digits, "
            "with single spaces, dots or hyphens inside at most"
        )


def _merged(base: Catalogue, addition: _File) -> Catalogue:
    """Add to the base: a name that the addition gives leaves every other place where it stood."""
    taken = {name for entry in addition.coins.values() for name in _given_names(entry)}
    coins = {symbol: _without(coin, taken) for symbol, coin in base.coins.items()}
    for symbol, entry in addition.coins.items():
        # Re-inserted at the end, so that its tickers win over those of earlier coins.
        coins[symbol] = _joined(symbol, coins.pop(symbol, None), entry)
    return Catalogue(coins, base.ignored.difference(taken).union(addition.ignore))


def _given_names(entry: _Entry) -> Iterator[str]:
    yield from entry.names
    yield from entry.likely
    yield from entry.leaning
    yield from entry.ambiguous
    yield from entry.common


def _without(coin: Coin, taken: set[str]) -> Coin:
    shown = (coin.korean, coin.english)
    given = (*coin.names, *coin.likely, *coin.leaning, *coin.ambiguous, *coin.common)
    lost = taken.intersection((*shown, *given))
    if not lost:
        return coin
    return replace(
        coin,
        names=tuple(name for name in coin.names if name not in lost),
        likely=tuple(name for name in coin.likely if name not in lost),
        leaning=tuple(name for name in coin.leaning if name not in lost),
        ambiguous=tuple(name for name in coin.ambiguous if name not in lost),
        common=tuple(name for name in coin.common if name not in lost),
        muted=coin.muted | lost,
    )


def _joined(symbol: str, known: Coin | None, entry: _Entry) -> Coin:
    start = known or Coin(symbol, korean=symbol, english=symbol)
    return Coin(
        symbol=symbol,
        korean=entry.korean or start.korean,
        english=entry.english or start.english,
        names=tuple(dict.fromkeys((*start.names, *entry.names))),
        likely=tuple(dict.fromkeys((*start.likely, *entry.likely))),
        leaning=tuple(dict.fromkeys((*start.leaning, *entry.leaning))),
        ambiguous=tuple(dict.fromkeys((*start.ambiguous, *entry.ambiguous))),
        common=tuple(dict.fromkeys((*start.common, *entry.common))),
        tickers=tuple(dict.fromkeys((*start.tickers, *entry.tickers))),
        explicit=start.explicit if entry.explicit is None else entry.explicit,
        against=tuple(dict.fromkeys((*start.against, *entry.against))),
        muted=start.muted.difference(_given_names(entry)),
    )
