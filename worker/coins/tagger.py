"""Which coins a text names."""

import re
import unicodedata
from collections.abc import Iterable

from worker.coins.catalogue import Catalogue, Certainty
from worker.coins.context import Judge
from worker.coins.index import NO_COIN, build_index
from worker.coins.korean import KoreanReader, Part
from worker.coins.mention import Mention
from worker.coins.rules import Found, Rule
from worker.coins.tickers import TickerReader
from worker.coins.vocabulary import vocabulary

# Longer words are read in pieces, so that neither time nor caches depend on who forgets the space bar.
_RUN = re.compile(r"[가-힣]{1,40}|[A-Za-z0-9]{1,40}")
_KOREAN = re.compile(r"[가-힣]*")
# Bounded on both sides of the @, or 10,000 of them would take minutes.
_NOT_TALK = re.compile(
    r"(?:https?://|www\.|t\.me/)\S+|[A-Za-z0-9._%+-]{1,64}@[A-Za-z0-9.-]{1,255}|@[A-Za-z0-9_]{1,64}"
)
# Normalised in pieces, too: to sort 130,000 combining marks behind one letter takes half a minute.
_PIECE = re.compile(r"\S{1,400}")
_FULL_WIDTH = re.compile("[！-～]")
_TO_HALF_WIDTH = {code: code - 0xFEE0 for code in range(0xFF01, 0xFF5F)}

_QUOTES = frozenset({"USDT", "USDC", "BUSD", "FDUSD", "TUSD", "BTC"})
# (KRW, BTC, USDT 마켓): these are what coins are paid in there, not coins that are talked of. Bounded, since
# each name of a list looks along the rest of it.
_MARKET_OF = re.compile(
    r"(?:\s?[,·&+]\s?(?:KRW|BTC|USDT|USDC|ETH|원화|테더|비트(?:코인)?)){0,16}\s?(?:마켓|페어|→\s?원화)"
)
# ETH/BTC 비율: both are talked of.
_RATIO = re.compile(r"\s*비율")
_BRACKETED = re.compile(r"\s?[(\[]\$?([A-Za-z0-9]{1,15})[)\],/:]")
# 8비트, 64비트: a width, not an amount, which 32이더 is.
_WIDTH = re.compile(r"(?<![\d.,])(?:4|8|16|24|32|64|128|256|512)$")
# 2조라고: behind a number these count, and begin no name; in 1만비트 the name stands behind them.
_NUMBER_UNITS = frozenset("조억만천백원개년월일시분초배층톤도")
_POWERS = "백천만억조"
_BY_CERTAINTY = {
    Certainty.SURE: Found.NAME,
    Certainty.LIKELY: Found.LIKELY,
    Certainty.LEANING: Found.LEANING,
    Certainty.AMBIGUOUS: Found.AMBIGUOUS,
    Certainty.COMMON: Found.COMMON,
}


class CoinTagger:
    """Finds the coins of a catalogue in Korean text.

    Safe to share between threads: nothing but bounded caches of words changes.
    """

    def __init__(
        self, catalogue: Catalogue, *, without: Iterable[Rule] = (), cached_words: int = 1 << 16
    ) -> None:
        """``without`` leaves rules of context out, to measure what they bring."""
        self._index = build_index(catalogue)
        self._korean = KoreanReader(self._index, vocabulary(), cached=cached_words)
        self._tickers = TickerReader(self._index)
        self._judge = Judge(self._index.against, without=frozenset(without))

    def tag(self, text: str) -> list[str]:
        """Return the symbols of the coins that the text names, each once, in order of first mention."""
        return list(dict.fromkeys(mention.symbol for mention in self.mentions(text)))

    def mentions(self, text: str) -> list[Mention]:
        """Return every name that stands for a coin; places are those in the text after normalisation."""
        text = _normalised(text)
        mentions = self._find(text)
        if not mentions:
            return mentions
        mentions = _without_quotes(mentions, text)
        if any(mention.certainty is not Certainty.SURE for mention in mentions):
            return self._judge.keep(text, mentions)
        return mentions

    def _find(self, text: str) -> list[Mention]:
        mentions: list[Mention] = []
        upto = 0
        for run in _RUN.finditer(text):
            start = run.start()
            if start < upto:
                continue
            word = run.group()
            upto = run.end()
            korean = word[0] >= "가"
            counted = korean and start > 0 and text[start - 1].isdigit()
            if counted:
                word = word.lstrip(_POWERS)
                start = upto - len(word)
                if not word:
                    continue
            whole = self._sequence(text, start, upto, word if korean else word.lower())
            if whole is None and not korean:
                whole = self._ticker(text, start, word)
            if whole is not None:
                upto = max(upto, whole.word_end)
                if whole.symbol:
                    mentions.append(whole)
            elif korean:
                parts = self._korean.read(word)
                if parts:
                    mentions.extend(self._placed(text, start, word, parts, counted=counted))
        return mentions

    def _placed(
        self, text: str, start: int, word: str, parts: tuple[Part, ...], *, counted: bool
    ) -> Iterable[Mention]:
        end = start + len(word)
        if counted and (word[0] in _NUMBER_UNITS or _is_width(text, start, word)):
            return
        for part in parts:
            if part.reading is NO_COIN:
                continue
            at = start + part.offset
            symbol, certainty = part.reading.symbol, part.reading.certainty
            found = Found.INSIDE if part.offset and part is parts[0] else _BY_CERTAINTY[certainty]
            if self._ticker_follows(text, end, symbol):
                certainty = Certainty.SURE
            # 0.5비트 is an amount of it, 3웨이브 may be anything.
            glued = part.glued or (counted and part.offset == 0 and certainty <= Certainty.LIKELY)
            yield Mention(at, at + part.length, end, symbol, certainty, found, glued)

    def _ticker_follows(self, text: str, at: int, symbol: str) -> bool:
        """무브먼트(MOVE): the ticker in brackets settles what the word means."""
        bracketed = _BRACKETED.match(text, at)
        ticker = self._index.latin.get(bracketed[1].lower()) if bracketed else None
        return ticker is not None and ticker.symbol == symbol

    def _ticker(self, text: str, start: int, word: str) -> Mention | None:
        mention = self._tickers.read(text, start, word)
        if mention is None:
            return None
        ending = _korean_at(text, mention.word_end)
        if not self._korean.is_ending(ending, mention.certainty):
            return None
        mention.glued |= bool(ending) and self._korean.is_tail(ending, mention.certainty)
        mention.word_end += len(ending)
        return mention

    def _sequence(self, text: str, start: int, end: int, word: str) -> Mention | None:
        """Return the name of several parts that begins with this word, the longest that stands there."""
        for rest, reading in self._index.sequences.get(word, ()):
            at = _end_of_parts(text, end, rest)
            # 비트 레이어2 is no 비트레이어.
            if at is None or text[at : at + 1].isdigit():
                continue
            ending = _korean_at(text, at)
            if reading is NO_COIN or self._korean.is_ending(ending, reading.certainty):
                word_end = at + len(ending)
                return Mention(start, at, word_end, reading.symbol, reading.certainty, Found.SEVERAL_WORDS)
        return None


def _is_width(text: str, start: int, word: str) -> bool:
    return word.startswith("비트") and _WIDTH.search(text[max(0, start - 5) : start]) is not None


def _korean_at(text: str, at: int) -> str:
    match = _KOREAN.match(text, at)
    return match.group() if match else ""


def _end_of_parts(text: str, at: int, parts: tuple[str, ...]) -> int | None:
    """Where the parts end that follow one another, each directly or behind one space or mark."""
    for part in parts:
        if not _starts(text, at, part):
            if text[at : at + 1] not in (" ", ".", "-"):
                return None
            at += 1
            if not _starts(text, at, part):
                return None
        at += len(part)
        if part[-1] < "가" and text[at : at + 1].isascii() and text[at : at + 1].isalnum():
            return None
    return at


def _starts(text: str, at: int, part: str) -> bool:
    return text[at : at + len(part)].lower() == part


def _normalised(text: str) -> str:
    """Composed syllables, half-width letters, and no links, addresses or handles."""
    if not unicodedata.is_normalized("NFC", text):
        text = _PIECE.sub(lambda piece: unicodedata.normalize("NFC", piece.group()), text)
    if _FULL_WIDTH.search(text):
        text = text.translate(_TO_HALF_WIDTH)
    if "@" in text or "://" in text or "www." in text or "t.me/" in text:
        text = _NOT_TALK.sub(" ", text)
    return text


def _without_quotes(mentions: list[Mention], text: str) -> list[Mention]:
    """Leave out coins that are only what others are paid in: 비트/테더, BTC 마켓."""
    ends = {mention.end for mention in mentions}
    return [mention for mention in mentions if not _is_quote(mention, ends, text)]


def _is_quote(mention: Mention, ends: set[int], text: str) -> bool:
    if mention.symbol not in _QUOTES and mention.symbol != "ETH":
        return False
    if _MARKET_OF.match(text, mention.end):
        return True
    before = mention.start - 1
    paired = before in ends and text[before] in "/-"
    return paired and mention.symbol in _QUOTES and _RATIO.match(text, mention.end) is None
