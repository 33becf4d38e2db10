"""Which coins a text names."""

import re
import unicodedata

from worker.coins.catalogue import Catalogue, Certainty
from worker.coins.context import keep, vocabulary
from worker.coins.index import NO_COIN, NameIndex, build_index
from worker.coins.korean import KoreanReader
from worker.coins.mention import Mention
from worker.coins.tickers import TickerReader

_RUN = re.compile(r"[가-힣]+|[A-Za-z0-9]+")
_KOREAN_RUN = re.compile(r"[가-힣]*")
_NOT_TALK = re.compile(r"(?:https?://|www\.|t\.me/)\S+|\S+@\S+\.\S+|@[A-Za-z0-9_]+")
_FULL_WIDTH = re.compile("[！-～]")
_TO_HALF_WIDTH = {code: code - 0xFEE0 for code in range(0xFF01, 0xFF5F)}

_QUOTE_COINS = frozenset({"USDT", "USDC", "BUSD", "FDUSD", "TUSD", "BTC"})
# (KRW, BTC, USDT 마켓): these are what coins are paid in there, not coins that are talked of.
_MARKET_OF = re.compile(r"(?:\s?[,·&+]\s?(?:KRW|BTC|USDT|USDC|ETH|원화|테더|비트(?:코인)?))*\s?(?:마켓|페어)")
_PAIR_MARKS = "/-"
# ETH/BTC 비율: both are talked of.
_RATIO = re.compile(r"\s*비율")
_BRACKETED = re.compile(r"\s?[(\[]\$?([A-Za-z0-9]{1,15})[)\],/:]")
# 8비트, 64비트: a width, not an amount.
_WIDTH = re.compile(r"(?<![\d.,])(?:4|8|16|24|32|64|128|256|512)$")


# 2조라고: behind a number these count, and begin no name.
_NUMBER_UNITS = frozenset("조억만천백원개년월일시분초배층톤도")


class CoinTagger:
    """Finds the coins of a catalogue in Korean text.

    Safe to share between threads: nothing but bounded caches of words changes.
    """

    def __init__(self, catalogue: Catalogue, *, cached_words: int = 1 << 16) -> None:
        self._index: NameIndex = build_index(catalogue)
        self._korean = KoreanReader(self._index, vocabulary(), cached=cached_words)
        self._tickers = TickerReader(self._index)

    def tag(self, text: str) -> list[str]:
        """Return the symbols of the coins that the text names, each once, in order of first mention."""
        text = _normalised(text)
        mentions = self._find(text)
        if not mentions:
            return []
        mentions = [mention for mention in mentions if not _is_quote(mention, mentions, text)]
        if any(mention.certainty is not Certainty.SURE for mention in mentions):
            mentions = keep(text, mentions, self._index.against)
        return list(dict.fromkeys(mention.symbol for mention in mentions))

    def _find(self, text: str) -> list[Mention]:
        mentions: list[Mention] = []
        upto = 0
        for run in _RUN.finditer(text):
            start = run.start()
            if start < upto:
                continue
            word = run.group()
            upto = run.end()
            if word[0] < "가":
                found = [self._sequence(text, run.end(), start, word.lower()) or self._ticker(text, start, word)]
            else:
                sequence = self._sequence(text, run.end(), start, word)
                found = [sequence] if sequence else self._names(text, start, word)
            for mention in found:
                if mention is not None:
                    upto = max(upto, mention.word_end)
                    if mention.symbol:
                        mentions.append(mention)
        return mentions

    def _names(self, text: str, start: int, word: str) -> list[Mention]:
        end = start + len(word)
        mentions = []
        for found in self._korean.read(word):
            at = start + found.offset
            glued = found.glued
            if found.offset == 0 and start and text[start - 1].isdigit():
                if word[0] in _NUMBER_UNITS or _WIDTH.search(text, 0, start):
                    continue
                glued = glued or found.reading.certainty <= Certainty.LIKELY
            symbol = found.reading.symbol
            certainty = Certainty.SURE if self._ticker_follows(text, end, symbol) else found.reading.certainty
            mentions.append(Mention(at, at + found.length, end, symbol, certainty, glued))
        return mentions

    def _ticker_follows(self, text: str, at: int, symbol: str) -> bool:
        """무브먼트(MOVE): the ticker in brackets settles what the word means."""
        bracketed = _BRACKETED.match(text, at)
        ticker = self._index.latin.get(bracketed[1].lower()) if bracketed else None
        return ticker is not None and ticker.symbol == symbol

    def _ticker(self, text: str, start: int, word: str) -> Mention | None:
        mention = self._tickers.read(text, start, word)
        if mention is None:
            return None
        run = _KOREAN_RUN.match(text, mention.word_end)
        ending = run.group() if run else ""
        if self._korean.is_particle(ending, 2, mention.certainty):
            mention.word_end += len(ending)
            return mention
        if not self._korean.is_tail(ending, mention.certainty):
            return None
        mention.glued = True
        mention.word_end += len(ending)
        return mention

    def _sequence(self, text: str, after: int, start: int, word: str) -> Mention | None:
        """Return a name of several parts that begins with this word, the longest that stands there."""
        for rest, reading in self._index.sequences.get(word, ()):
            end = _end_of_parts(text, after, rest)
            if end is None:
                continue
            run = _KOREAN_RUN.match(text, end)
            ending = run.group() if run else ""
            if reading is NO_COIN or self._korean.is_particle(ending, 2, reading.certainty) or self._korean.is_tail(ending, reading.certainty):
                word_end = end + len(ending)
                return Mention(start, end, word_end, reading.symbol, reading.certainty, glued=False)
        return None


def _end_of_parts(text: str, at: int, parts: tuple[str, ...]) -> int | None:
    """Where the parts end that follow one another, each directly or behind one space or mark."""
    for part in parts:
        if not _starts(text, at, part):
            if at >= len(text) or text[at] not in " .-":
                return None
            at += 1
            if not _starts(text, at, part):
                return None
        at += len(part)
        if part[-1] < "가" and at < len(text) and text[at].isascii() and text[at].isalnum():
            return None
    return at


def _starts(text: str, at: int, part: str) -> bool:
    return text[at : at + len(part)].lower() == part


def _normalised(text: str) -> str:
    if not unicodedata.is_normalized("NFC", text):
        text = unicodedata.normalize("NFC", text)
    if _FULL_WIDTH.search(text):
        text = text.translate(_TO_HALF_WIDTH)
    if "@" in text or "://" in text or "www." in text or "t.me/" in text:
        text = _NOT_TALK.sub(" ", text)
    return text


def _is_quote(mention: Mention, mentions: list[Mention], text: str) -> bool:
    """Whether the coin is only what others are paid in: 비트/테더, BTC 마켓."""
    if mention.symbol not in _QUOTE_COINS and mention.symbol != "ETH":
        return False
    if _MARKET_OF.match(text, mention.end):
        return True
    if mention.symbol not in _QUOTE_COINS or _RATIO.match(text, mention.end):
        return False
    return any(other.end == mention.start - 1 and text[other.end] in _PAIR_MARKS for other in mentions)
