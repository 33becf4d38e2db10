"""The market map: a coin's symbol to each exchange's own code, and back."""

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pydantic import BaseModel, ConfigDict, Field, PositiveInt, ValidationError

from worker.coins import Catalogue
from worker.errors import ConfigurationError

_BUILT_IN: Final = Path(__file__).with_name("markets.toml")
_MULTIPLE: Final = re.compile(r"(1M|10{3,6})([A-Z][A-Z0-9]*)|([A-Z][A-Z0-9]*?)(10{3,6})")
"""1000PEPE, 1MBABYDOGE, and as Bybit has it SHIB1000."""


class MarketError(ConfigurationError):
    """A coin, venue or code that has no place in the map; the message says what to do."""


@dataclass(frozen=True, slots=True)
class Market:
    """One coin against one currency at one venue."""

    symbol: str
    """The coin as signals name it."""
    venue: str
    quote: str
    code: str
    """What the venue itself calls the market."""
    units: int = 1
    """Coins in one unit of the market's base: 1000 where the code is 1000PEPEUSDT."""


class _Base(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    code: str = Field(pattern=r"^[A-Z0-9]+$")
    units: PositiveInt = 1


class _Venue(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    format: str = Field(pattern=r"\{base\}.*\{quote\}|\{quote\}.*\{base\}")
    quotes: list[str] = Field(min_length=1)
    lower: bool = False
    codes: dict[str, _Base] = Field(default_factory=dict)
    unsure: list[str] = Field(default_factory=list)
    multiples: bool = False

    def written(self, base: str, quote: str) -> str:
        code = self.format.replace("{base}", base).replace("{quote}", quote)
        return code.lower() if self.lower else code

    def base_of(self, code: str, quote: str) -> str | None:
        """The base in a code with that quote, None where the code has another form."""
        before, _, after = self.format.replace("{quote}", quote).partition("{base}")
        text = code.upper()
        fits = text.startswith(before) and text.endswith(after) and len(text) > len(before) + len(after)
        return text[len(before) : len(text) - len(after)] if fits else None


class Markets:
    """Codes of every coin of a catalogue at every venue.

    ::

        markets = Markets(load_catalogue())
        markets.code("BTC", "upbit")  # "KRW-BTC"
        markets.market("1000PEPEUSDT", "binance-futures")  # PEPE in units of 1000

    A code says how the venue would write the market, not that it lists it.

    Args:
        catalogue: the coins; their former tickers are understood in codes, and never written.
        user_file: TOML of the form of ``markets.toml``: venues of your own, and whole
            replacements or added ``codes`` of those that are known.

    Raises:
        MarketError: the file cannot be used.
    """

    def __init__(self, catalogue: Catalogue, user_file: Path | None = None) -> None:
        self._venues = _read(_BUILT_IN, {})
        if user_file is not None:
            self._venues |= _read(user_file, self._venues)
        self._catalogue = catalogue
        self._former = {ticker: coin.symbol for coin in catalogue for ticker in coin.tickers}

    @property
    def venues(self) -> tuple[str, ...]:
        """Their names."""
        return tuple(self._venues)

    def code(self, symbol: str, venue: str = "upbit", quote: str | None = None) -> str:
        """What the venue calls the coin's market; its first quote currency where none is given.

        Raises:
            MarketError: the coin, venue or currency is unknown, or the code would be unsure.
        """
        return self.of(symbol, venue, quote).code

    def of(self, symbol: str, venue: str = "upbit", quote: str | None = None) -> Market:
        """The coin's market with everything about it; raises as `code` does."""
        rules = self._rules(venue)
        if symbol not in self._catalogue:
            raise MarketError(f"{symbol!r} is no coin of the catalogue: add it in coins.user_file.")
        quote = quote or next(q for q in rules.quotes if q != symbol)
        if quote not in rules.quotes:
            raise MarketError(f"{venue} has no markets in {quote}: it has {', '.join(rules.quotes)}.")
        if quote == symbol:
            raise MarketError(f"{symbol} cannot be traded against itself.")
        base = rules.codes.get(symbol, _Base(code=symbol))
        if symbol not in rules.codes:
            self._refuse_unsure(venue, rules, symbol)
        return Market(symbol, venue, quote, rules.written(base.code, quote), base.units)

    def spellings(self, symbol: str, venue: str = "upbit", quote: str | None = None) -> tuple[str, ...]:
        """The coin's code, and further ones that are read as known multiples of it; raises as `code` does."""
        market, rules = self.of(symbol, venue, quote), self._rules(venue)
        if not rules.multiples or symbol in rules.codes:
            return (market.code,)
        known = [other.codes[symbol] for other in self._venues.values() if symbol in other.codes]
        multiples = [rules.written(base.code, market.quote) for base in known if base.units > 1]
        return tuple(dict.fromkeys((market.code, *multiples)))

    def codes(self, symbol: str) -> dict[str, Market]:
        """The coin's first market at every venue where its code is sure."""
        return {
            venue: self.of(symbol, venue)
            for venue, rules in self._venues.items()
            if symbol in rules.codes or symbol not in rules.unsure
        }

    def market(self, code: str, venue: str = "upbit") -> Market:
        """The market that a venue's code means.

        Raises:
            MarketError: it has no form of that venue, names no coin of the catalogue, or is unsure.
        """
        rules = self._rules(venue)
        forms = [(quote, rules.base_of(code, quote)) for quote in rules.quotes]
        for quote, base in forms:
            symbol, units = (None, 1) if base is None else self._coin(base, venue, rules)
            if symbol is not None and symbol != quote:
                return Market(symbol, venue, quote, code, units)
        for _, base in forms:
            if base is not None:
                raise MarketError(
                    f"{code!r} of {venue} names no coin of the catalogue: {self._mend(base, venue)}."
                )
        example = rules.written("BTC", rules.quotes[0])
        raise MarketError(f"{code!r} is no market of {venue}: one is written like {example}.")

    def _coin(self, base: str, venue: str, rules: _Venue) -> tuple[str | None, int]:
        """The coin that a base means there, None where none, and how many of it one unit is."""
        for called, known in rules.codes.items():
            if known.code == base:
                return called, known.units
        self._refuse_unsure(venue, rules, base)
        if rules.multiples and base not in self._catalogue and (multiple := _multiple(base)):
            symbol, units = self._coin(multiple[0], venue, rules)
            if symbol is not None:
                return symbol, units * multiple[1]
        symbol = base if base in self._catalogue else self._former.get(base)
        # Kraken's LUNA is LUNC: a code that stands for one coin there stands for no other.
        return (None if symbol in rules.codes else symbol), 1

    def _mend(self, base: str, venue: str) -> str:
        multiple = _multiple(base)
        if multiple is None:
            return "add it in coins.user_file"
        coin, units = multiple
        add = "" if coin in self._catalogue else f"add {coin} in coins.user_file, and "
        return (
            f"{add}say in bot.markets_file, as [{venue}.codes] with {coin} = "
            f'{{ code = "{base}", units = {units} }}, that it is {units} of them'
        )

    def _refuse_unsure(self, venue: str, rules: _Venue, base: str) -> None:
        if base in rules.unsure:
            raise MarketError(
                f"{base} has meant two coins at {venue}: say which in bot.markets_file, "
                f"as [{venue}.codes] with SYMBOL = {{ code = {base!r} }}."
            )

    def _rules(self, venue: str) -> _Venue:
        try:
            return self._venues[venue]
        except KeyError:
            raise MarketError(
                f"The venue {venue!r} is unknown: there are {', '.join(self._venues)}."
            ) from None


def _multiple(base: str) -> tuple[str, int] | None:
    """The coin in a base such as 1000PEPE, and how many of it; None in one of another form."""
    match = _MULTIPLE.fullmatch(base)
    if match is None:
        return None
    units = match[1] or match[4]
    return match[2] or match[3], 1_000_000 if units == "1M" else int(units)


def _read(path: Path, known: Mapping[str, _Venue]) -> dict[str, _Venue]:
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
        venues = {}
        for venue, given in raw.items():
            _check_table(path, venue, given)
            _check_table(path, f"{venue}.codes", given.get("codes", {}))
            base = known[venue].model_dump() if venue in known else {}
            codes = base.get("codes", {}) | given.get("codes", {})
            venues[venue] = _Venue.model_validate({**base, **given, "codes": codes})
    except OSError as error:
        raise MarketError(f"The market map {path} cannot be read: {error.strerror}.") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise MarketError(f"The market map {path} is not TOML in UTF-8: {error}.") from error
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        key = ".".join(str(part) for part in first["loc"])
        raise MarketError(f"The market map {path}, key {key}: {first['msg']}.") from error
    return venues


def _check_table(path: Path, key: str, given: object) -> None:
    if not isinstance(given, dict):
        raise MarketError(f"The market map {path}, key {key}: write it as a table, [{key}].")
