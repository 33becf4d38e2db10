"""Reads Latin words: tickers in any dress ($BTC, KRW-BTC, BTC/USDT, BTCUSDT.P, 0.5BTC) and English names."""

import re
from collections.abc import Iterator

from worker.coins.catalogue import Certainty
from worker.coins.index import NameIndex, Ticker
from worker.coins.mention import Mention
from worker.coins.rules import Found

_MONEY = frozenset({"KRW", "USD", "USDT", "USDC", "BUSD", "FDUSD", "TUSD", "EUR", "JPY", "TRY", "USD1"})
_QUOTES = _MONEY | {"BTC", "PERP", "SWAP"}
_GLUED_QUOTES = ("USDT", "USDC", "FDUSD", "BUSD", "TUSD", "USD1", "USD", "KRW", "PERP", "BTC", "ETH")
# FBTC, GBTC and METH are funds and staked coins, not pairs of F, G and M.
_QUOTES_OF_ONE_LETTER = ("USDT", "USDC", "FDUSD", "KRW", "PERP")
_MULTIPLE = re.compile(r"1000000|10000|1000|1M")
_THOUSANDS = re.compile(r"1000(?:000)?(?P<base>[A-Z]{3,})")
_AMOUNT = re.compile(r"\d+(?P<base>[A-Za-z]{2,})")
_LATIN = re.compile(r"[A-Za-z0-9]+")
# Behind a pair: BTC-USDT-SWAP, BTCUSDT.P, BTC/USDT:USDT.
_SUFFIX = re.compile(r"[-_/:.](?:USDT|USDC|USD|SWAP|PERP|P|M)\b", re.IGNORECASE)
_RATIO = re.compile(r"\s*비율")
# In brackets behind a Korean word these are said of much else: 인공지능(AI), 대체불가토큰(NFT).
_ACRONYMS = frozenset({"AI", "NFT", "DAO", "IP", "ID", "IO", "IQ", "ICE", "DATA", "GPS", "EDGE"})


class TickerReader:
    """Reads one Latin word of a text, together with the one that it is paired with."""

    def __init__(self, index: NameIndex) -> None:
        self._tickers = index.latin

    def read(self, text: str, start: int, word: str) -> Mention | None:
        """Return what the word at ``start`` names; ``word_end`` reaches behind its pair."""
        end = start + len(word)
        ticker = self._tickers.get(word.lower())
        if ticker is not None and start and text[start - 1] == "$":
            return _marked(start, end, end, ticker)
        pair = self._pair(text, start, end, word)
        if pair is not None:
            return pair
        if ticker is None:
            return self._dressed(text, start, end, word)
        if ticker.capitals is None and _is_bracketed(text, start, end):
            # 에이서(ATH): some name stands before it.
            if word in _ACRONYMS:
                return None
            return Mention(start, end, end, ticker.symbol, Certainty.AMBIGUOUS, Found.UNSURE_TICKER)
        mention = _plain(start, end, word, ticker)
        if mention is not None and mention.certainty is Certainty.LIKELY and _is_bracketed(text, start, end):
            mention.certainty = Certainty.SURE
        return mention

    def _pair(self, text: str, start: int, end: int, word: str) -> Mention | None:
        """KRW-BTC and BTC-ETH name the coin last, BTC/KRW and BTC-USDT first."""
        if end >= len(text) or text[end] not in "-/_":
            return None
        other = _LATIN.match(text, end + 1)
        if other is None or _RATIO.match(text, other.end()):
            return None
        first, second = word.upper(), other.group().upper()
        if first in _MONEY or (first == "BTC" and text[end] != "/" and second not in _QUOTES):
            base, at = second, other.start()
        elif second in _QUOTES:
            base, at = first, start
        else:
            return None
        ticker = self._tickers.get(base.lower())
        if ticker is None or base not in (ticker.symbol, ticker.as_written.upper()):
            return None
        suffix = _SUFFIX.match(text, other.end())
        return _marked(at, at + len(base), suffix.end() if suffix else other.end(), ticker)

    def _dressed(self, text: str, start: int, end: int, word: str) -> Mention | None:
        """A pair without a mark between (BTCUSDT), a contract (1000PEPE), or an amount (5BTC)."""
        if word.isupper() or word.islower():
            # Small letters need a base of three, or ordinary words would be pairs.
            ticker = self._base(word.upper(), shortest=1 if word.isupper() else 3)
            if ticker is not None:
                suffix = _SUFFIX.match(text, end)
                return _marked(start, end, suffix.end() if suffix else end, ticker)
        amount = _AMOUNT.fullmatch(word)
        ticker = self._tickers.get(amount["base"].lower()) if amount else None
        mention = _plain(start, end, amount["base"], ticker) if amount and ticker else None
        if mention is not None:
            mention.glued = mention.certainty <= Certainty.LIKELY
        return mention

    def _base(self, word: str, shortest: int) -> Ticker | None:
        """The longest known base of a pair in one word, or of a contract of a thousand."""
        bases = sorted(_bases_of_pair(word), key=len, reverse=True)
        if contract := _THOUSANDS.fullmatch(word):
            bases.append(contract["base"])
        known = (self._tickers.get(base.lower()) for base in bases if len(base) >= shortest)
        return next((ticker for ticker in known if ticker is not None), None)


def _bases_of_pair(word: str) -> Iterator[str]:
    """What may stand before a quote at the end of a word, with and without its multiple."""
    for pair in dict.fromkeys((word, word.removesuffix("PERP"))):
        for quote in _GLUED_QUOTES:
            if not pair.endswith(quote):
                continue
            base = pair.removesuffix(quote)
            multiple = _MULTIPLE.match(base)
            for one in (base, base[multiple.end() :]) if multiple else (base,):
                if len(one) > 1 or (one and quote in _QUOTES_OF_ONE_LETTER):
                    yield one


def _is_bracketed(text: str, start: int, end: int) -> bool:
    return start >= 2 and text[start - 1] == "(" and text[start - 2] >= "가" and text[end : end + 1] == ")"


def _plain(start: int, end: int, word: str, ticker: Ticker) -> Mention | None:
    capitals = word in (ticker.as_written, ticker.as_written.upper())
    certainty = ticker.capitals if capitals else ticker.other_case
    if certainty is None:
        return None
    found = Found.TICKER if certainty <= Certainty.LIKELY else Found.UNSURE_TICKER
    return Mention(start, end, end, ticker.symbol, certainty, found)


def _marked(start: int, end: int, word_end: int, ticker: Ticker) -> Mention:
    return Mention(start, end, word_end, ticker.symbol, Certainty.SURE, Found.MARKED_TICKER)
