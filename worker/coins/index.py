"""The catalogue turned round: from what is written to the coin that is meant."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product

from worker.coins.catalogue import Catalogue, Certainty, Coin

_PART = re.compile(r"[가-힣]+|[A-Za-z0-9]+")
_HANGUL = re.compile(r"[가-힣]+")
# 비트코인캐시 is also written 비트코인 캐시, 월드코인 also 월드 코인.
_SPACED_TAILS = (
    "코인",
    "토큰",
    "체인",
    "네트워크",
    "프로토콜",
    "파이낸스",
    "스왑",
    "다오",
    "캐시",
    "캐쉬",
    "클래식",
    "골드",
    "이누",
    "에이아이",
)


@dataclass(frozen=True, slots=True)
class Reading:
    """What a spelling may stand for."""

    symbol: str
    certainty: Certainty


# What an ignored phrase stands for.
NO_COIN = Reading("", Certainty.SURE)


@dataclass(frozen=True, slots=True)
class Ticker:
    """How a Latin word may stand for a coin; ``None`` where that form does not count."""

    symbol: str
    as_written: str
    capitals: Certainty | None
    other_case: Certainty | None


@dataclass(frozen=True, slots=True)
class NameIndex:
    """Spellings by their form.

    ``hangul``: one Korean word. ``latin``: one Latin word, lower case.
    ``sequences``: names of several parts by their first part in lower case,
    longest first; parts stand directly behind each other or apart by one space.
    ``against``: by symbol, the words that speak for an everyday meaning.
    """

    hangul: dict[str, Reading]
    latin: dict[str, Ticker]
    sequences: dict[str, list[tuple[tuple[str, ...], Reading]]]
    against: dict[str, tuple[str, ...]]


def build_index(catalogue: Catalogue) -> NameIndex:
    """Index every spelling of every coin; of two coins with one spelling the later wins."""
    hangul: dict[str, Reading] = {}
    latin = _tickers(catalogue)
    sequences: dict[tuple[str, ...], Reading] = {}
    for coin in catalogue:
        for name, certainty in coin.spellings():
            reading = Reading(coin.symbol, certainty)
            for parts in _spellings(name, certainty):
                if len(parts) > 1:
                    sequences[tuple(part.lower() for part in parts)] = reading
                elif _HANGUL.fullmatch(parts[0]):
                    hangul[parts[0]] = reading
                else:
                    key = parts[0].lower()
                    latin[key] = _ticker(coin, parts[0], certainty, latin.get(key))
    for phrase in catalogue.ignored:
        for parts in _spellings(phrase, Certainty.SURE):
            if len(parts) > 1:
                sequences[tuple(part.lower() for part in parts)] = NO_COIN
            elif _HANGUL.fullmatch(parts[0]):
                # Kept among the names, or a shorter one inside it would be found instead.
                hangul[parts[0]] = NO_COIN
            else:
                latin.pop(parts[0].lower(), None)
    against = {coin.symbol: coin.against for coin in catalogue if coin.against}
    return NameIndex(hangul, latin, _by_first(sequences), against)


def _tickers(catalogue: Catalogue) -> dict[str, Ticker]:
    tickers: dict[str, Ticker] = {}
    for coin in catalogue:
        for former in coin.tickers:
            tickers[former.lower()] = Ticker(coin.symbol, former, Certainty.SURE, Certainty.AMBIGUOUS)
    # Symbols come after the former tickers of others: BTC is never somebody's alias.
    for coin in catalogue:
        capitals = None if coin.explicit else _certainty_of_ticker(coin)
        other_case = None if coin.explicit or len(coin.symbol) < 3 else Certainty.AMBIGUOUS
        tickers[coin.symbol.lower()] = Ticker(coin.symbol, coin.symbol, capitals, other_case)
    return tickers


def _certainty_of_ticker(coin: Coin) -> Certainty:
    """LINK is a word, too, where a name of the coin is one, so that words may speak against it."""
    return Certainty.LIKELY if coin.leaning or coin.ambiguous or coin.common else Certainty.SURE


def _by_first(
    sequences: dict[tuple[str, ...], Reading],
) -> dict[str, list[tuple[tuple[str, ...], Reading]]]:
    by_first: dict[str, list[tuple[tuple[str, ...], Reading]]] = {}
    for parts, reading in sequences.items():
        by_first.setdefault(parts[0], []).append((parts[1:], reading))
    for candidates in by_first.values():
        candidates.sort(key=lambda candidate: -sum(map(len, candidate[0])))
    return by_first


def _ticker(coin: Coin, word: str, certainty: Certainty, known: Ticker | None) -> Ticker:
    """A Latin name: in any case if it is sure, else in small letters only among much market talk."""
    if coin.explicit and word.upper() == coin.symbol:
        return Ticker(coin.symbol, word, None, None)
    if certainty is Certainty.SURE:
        return Ticker(coin.symbol, word, certainty, certainty)
    if known is not None and known.symbol == coin.symbol and not word.isupper():
        # An unsure "Render" says nothing against the ticker RENDER, nor RENDER for a "Render".
        return Ticker(coin.symbol, word.upper(), known.capitals, certainty)
    return Ticker(coin.symbol, word, certainty, Certainty.COMMON if len(word) > 2 else None)


def _spellings(name: str, certainty: Certainty) -> Iterator[tuple[str, ...]]:
    """The parts of a name in every spacing: each space may be left out, some tails may stand apart."""
    words = re.split(r"[ .-]", name)
    if certainty <= Certainty.LIKELY and len(words) == 1:
        tail = next((tail for tail in _SPACED_TAILS if name.endswith(tail)), None)
        if tail is not None and len(name) - len(tail) >= 2:
            words = [name.removesuffix(tail), tail]
    for gaps in product(("", " "), repeat=len(words) - 1):
        joined = words[0] + "".join(gap + word for gap, word in zip(gaps, words[1:], strict=True))
        yield tuple(_PART.findall(joined))
