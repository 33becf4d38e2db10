"""Reads Latin words: tickers in any dress ($BTC, KRW-BTC, BTC/USDT, BTCUSDT.P, 0.5BTC) and English names."""

import re
from dataclasses import dataclass

from worker.coins.catalogue import Certainty
from worker.coins.index import NameIndex, Ticker
from worker.coins.mention import Mention

_CASH = frozenset({"KRW", "USD", "USDT", "USDC", "BUSD", "FDUSD", "TUSD", "EUR", "JPY", "TRY", "BTC"})
_GLUED_PAIR = re.compile(
    r"(?:1000000|10000|1000|1M)?(?P<base>[A-Z0-9]+?)(?:USDT|USDC|FDUSD|BUSD|TUSD|USD|KRW|PERP|BTC|ETH)(?:PERP)?"
)
_THOUSANDS = re.compile(r"1000(?:000)?(?P<base>[A-Z]{3,})")
_AMOUNT = re.compile(r"\d+(?P<base>[A-Za-z]{2,})")
_BRACKETED = re.compile(r"[)\]]")
_NAMED = re.compile(r"[가-힣][(\[]$")
_ACRONYMS = frozenset({"AI", "NFT", "DAO", "IP", "ID", "IO", "IQ", "ICE", "DATA", "BAND", "GPS", "EDGE"})
_RATIO = re.compile(r"\s*(?:비율|비)\b")
_LATIN = re.compile(r"[A-Za-z0-9]+")
# Behind a pair: BTC-USDT-SWAP, BTCUSDT.P, BTC/USDT:USDT.
_SUFFIX = re.compile(r"[-_/:.](?:USDT|USDC|USD|SWAP|PERP|P|M)\b", re.IGNORECASE)


class TickerReader:
    """Reads one Latin word of a text, together with the one that it is paired with."""

    def __init__(self, index: NameIndex) -> None:
        self._tickers = index.latin

    def read(self, text: str, start: int, word: str) -> Mention | None:
        """Return what the word at ``start`` names; ``word_end`` reaches behind its pair."""
        end = start + len(word)
        before = text[start - 1] if start else ""
        if before == "$" and (ticker := self._tickers.get(word.lower())):
            return _mention(start, end, end, ticker, Certainty.SURE)
        pair = self._pair(text, start, end, word)
        if pair is not None:
            return pair
        ticker = self._tickers.get(word.lower())
        if ticker is None:
            return self._dressed(text, start, end, word)
        if ticker.capitals is None and _BRACKETED.match(text, end) and _NAMED.search(text, 0, start):
            # 에이서(ATH): some name stands before it, but (AI) and (NFT) are said of much else.
            return None if word in _ACRONYMS else _mention(start, end, end, ticker, Certainty.AMBIGUOUS)
        return self._plain(start, end, word, ticker)

    @staticmethod
    def _plain(start: int, end: int, word: str, ticker: Ticker) -> Mention | None:
        capitals = word == ticker.as_written or word == ticker.as_written.upper()
        certainty = ticker.capitals if capitals else ticker.other_case
        return None if certainty is None else _mention(start, end, end, ticker, certainty)

    def _pair(self, text: str, start: int, end: int, word: str) -> Mention | None:
        """KRW-BTC and USDT-BTC name the coin last, BTC/KRW and BTC-USDT first."""
        if end >= len(text) or text[end] not in "-/_":
            return None
        other = _LATIN.match(text, end + 1)
        if other is None:
            return None
        first, second = word.upper(), other.group().upper()
        if _RATIO.match(text, other.end()):
            return None
        if text[end] != "/" and first in _CASH and second not in _CASH - {"BTC"}:
            base, at = second, other.start()
        elif second in _CASH:
            base, at = first, start
        elif first in _CASH - {"BTC"}:
            base, at = second, other.start()
        else:
            return None
        ticker = self._tickers.get(base.lower())
        if ticker is None or base not in (ticker.symbol, ticker.as_written.upper()):
            return None
        suffix = _SUFFIX.match(text, other.end())
        return _mention(at, at + len(base), suffix.end() if suffix else other.end(), ticker, Certainty.SURE)

    def _dressed(self, text: str, start: int, end: int, word: str) -> Mention | None:
        """A pair without a mark between (BTCUSDT), a contract (1000PEPE), or an amount (0.5BTC)."""
        if word.isupper() or word.islower():
            upper = word.upper()
            for pattern in (_GLUED_PAIR, _THOUSANDS):
                match = pattern.fullmatch(upper)
                ticker = self._tickers.get(match["base"].lower()) if match else None
                # Lower case needs two letters at least, or ordinary words would be pairs.
                if match and ticker and (word.isupper() or len(match["base"]) > 2):
                    suffix = _SUFFIX.match(text, end)
                    return _mention(start, end, suffix.end() if suffix else end, ticker, Certainty.SURE)
        match = _AMOUNT.fullmatch(word)
        ticker = self._tickers.get(match["base"].lower()) if match else None
        return self._plain(start, end, match["base"], ticker) if match and ticker else None


def _mention(start: int, end: int, word_end: int, ticker: Ticker, certainty: Certainty) -> Mention:
    return Mention(start, end, word_end, ticker.symbol, certainty)
