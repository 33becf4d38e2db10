"""Whether the words around a name make a coin of it."""

import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from functools import lru_cache
from pathlib import Path

from worker.coins.catalogue import Certainty
from worker.coins.endings import PLAIN_PARTICLE
from worker.coins.mention import Mention

_FILE = Path(__file__).with_name("context_words.toml")


class Kind(Enum):
    """What a word tells about the talk that it stands in."""

    MARKET = "market"
    MOTION = "motion"
    FAINT = "faint"
    EVERYDAY = "everyday"
    NONE = ""


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """The word lists of ``context_words.toml``; ``starts`` by the first two letters, longest first."""

    exact: Mapping[str, Kind]
    starts: Mapping[str, Sequence[tuple[str, Kind]]]
    tails: Sequence[str]
    noun_tails: Sequence[str]
    false_friends: Sequence[str]


@lru_cache(maxsize=1)
def vocabulary() -> Vocabulary:
    """Return the word lists."""
    lists: dict[str, list[str]] = tomllib.loads(_FILE.read_text(encoding="utf-8"))
    exact: dict[str, Kind] = {}
    starts: dict[str, list[tuple[str, Kind]]] = {}
    # Of a word in two lists the later one counts, so the most telling comes last.
    for kind in (Kind.EVERYDAY, Kind.FAINT, Kind.MOTION, Kind.MARKET):
        for word in lists[kind.value]:
            exact[word] = kind
            if len(word) > 1 and "가" <= word[0] <= "힣":
                starts.setdefault(word[:2], []).append((word, kind))
    for candidates in starts.values():
        candidates.sort(key=lambda candidate: -len(candidate[0]))
    return Vocabulary(exact, starts, lists["tails"], lists["noun_tails"], lists["false_friends"])


# 개쏜다, 안쳐다본다, 다팔았다: a word of trading behind what makes it stronger or denies it.
_STRENGTHENED = re.compile(r"(?:개|안|못|더|다|또|존나|존|막|확|쭉|왜|쌉|겁나|너무|다시)(?=..)")


@lru_cache(maxsize=1 << 16)
def kind_of(word: str) -> Kind:
    """Class one word (Korean or lower-case Latin), whatever ending it has."""
    kind = _kind_of(word)
    if kind is Kind.NONE and (stronger := _STRENGTHENED.match(word)):
        inner = _kind_of(word[stronger.end() :])
        return inner if inner is not Kind.EVERYDAY else Kind.NONE
    return kind


def _kind_of(word: str) -> Kind:
    words = vocabulary()
    kind = words.exact.get(word)
    if kind is not None:
        return kind
    for start, start_kind in words.starts.get(word[:2], ()):
        if word.startswith(start):
            return start_kind
    if _is_past(word[0]):
        # 샀는데, 갔다가, 쐈던: a past stem needs no look at its ending.
        return words.exact.get(word[0], Kind.NONE)
    if 2 <= len(word) <= 4 and PLAIN_PARTICLE.fullmatch(word, 1):
        return words.exact.get(word[0], Kind.NONE)
    return Kind.NONE


def _is_past(syllable: str) -> bool:
    return "가" <= syllable <= "힣" and (ord(syllable) - ord("가")) % 28 == 20


_WORD = re.compile(r"[가-힣]+|[A-Za-z]+|[ㄱ-ㅎ]{2,}|\d[\d,.]*")
# A number with what it counts, right behind a name: a price, a change, an amount.
_PRICE = re.compile(
    r"\s*[(\[]?(?P<sign>[+\-–▲▼↑↓])?\s*(?P<number>\d[\d,.]*)\s*(?P<unit>%|퍼|프로|불|달러|층|만불|만달러|천불|원|만원|천원|k\b|K\b|배|\$|→|->)?"
)
_ANY_PRICE = re.compile(r"\d(?:%|퍼|불|달러|만불|원|만원|천원)")
_SENTENCE_END = re.compile(r"[.…!?\n\]|“‘\"']\s*$")
# What stands between the coins of a list: 이더·솔·수이, 비트랑 이더, 도지 시바.
_LIST_MARK = re.compile(r"[\s·,/&+\-→>~\d.%]*")

# Scores, set by hand on half of the labelled lines; above zero a name is a coin.
_PRIOR = {Certainty.LIKELY: 3.0, Certainty.AMBIGUOUS: -2.0, Certainty.COMMON: -3.0}
# Of an everyday thing it is said, too, that it rises, falls and is bought.
_OF_COMMON = {Kind.MARKET: 1.0, Kind.MOTION: 0.6, Kind.FAINT: 0.0}
_BEHIND = {Kind.MARKET: (4.0, 3.0, 2.0, 1.5), Kind.MOTION: (3.0, 2.0, 1.0, 0.5), Kind.FAINT: (2.0, 1.0)}
_BEFORE = {Kind.MARKET: (2.5, 2.0, 1.0), Kind.MOTION: (1.5, 0.5), Kind.FAINT: ()}
_FAR_MARKET = 0.7
_NEAR, _MOST_FOR, _MOST_FAR = 3, 6.0, 2.0
_EVERYDAY_NEAR, _EVERYDAY_FAR, _MOST_EVERYDAY = -1.5, -0.7, -3.0
_AGAINST_NEXT, _AGAINST_NEAR, _AGAINST_FAR = -8.0, -6.0, -2.0
_GLUED = 5.0
_FIRST_WORD = 1.5
_LISTED, _LISTED_UNSURE, _COIN_ELSEWHERE, _SAME_COIN = 4.0, 2.5, 2.1, 4.0
_HEADED = 2.0
_LONG, _LONG_WITHOUT = 6, -2.5
_PRICE_ELSEWHERE = 1.0
_PRICED = {"%": 4.0, "퍼": 4.0, "불": 4.0, "달러": 4.0, "층": 4.0, "만불": 4.0, "만달러": 4.0, "천불": 4.0, "k": 3.0, "K": 3.0, "$": 4.0}
_PRICED_WON, _PRICED_SIGNED, _PRICED_DECIMAL, _PRICED_BARE, _NUMBERED = 3.0, 3.0, 2.5, 0.5, -3.0


@dataclass(frozen=True, slots=True)
class _Surroundings:
    """The words of a text outside its names, each with its place among all words."""

    starts: list[int]
    words: list[str]
    kinds: list[Kind | None]
    """None for a word that is part of a name."""


def keep(text: str, mentions: list[Mention], against: Mapping[str, tuple[str, ...]]) -> list[Mention]:
    """Leave out the names that mean something else here."""
    around = _surroundings(text, mentions)
    settled = {id(mention) for mention in mentions if mention.certainty is Certainty.SURE}
    # Twice, so that a name that the words made sure of helps the ones beside it.
    for _ in range(2):
        for mention in mentions:
            if id(mention) not in settled:
                words = against.get(mention.symbol, ())
                if _score(text, mention, mentions, settled, around, words) > 0:
                    settled.add(id(mention))
    return [mention for mention in mentions if id(mention) in settled]


def _surroundings(text: str, mentions: list[Mention]) -> _Surroundings:
    starts, words, kinds = [], [], []
    spans = [(mention.start, mention.word_end) for mention in mentions]
    for match in _WORD.finditer(text):
        start = match.start()
        word = match.group().lower()
        starts.append(start)
        words.append(word)
        named = any(first <= start < last for first, last in spans)
        kinds.append(None if named else kind_of(word))
    return _Surroundings(starts, words, kinds)


def _score(
    text: str,
    mention: Mention,
    mentions: list[Mention],
    settled: set[int],
    around: _Surroundings,
    against: tuple[str, ...],
) -> float:
    first = next(
        (place for place, start in enumerate(around.starts) if start >= mention.start), len(around.starts)
    )
    last = first
    while last + 1 < len(around.starts) and around.starts[last + 1] < mention.word_end:
        last += 1
    score = _PRIOR[mention.certainty]
    if mention.glued:
        score += _GLUED
    if first == 0 or _SENTENCE_END.search(text, 0, mention.start):
        score += _HEADED if text.startswith(",", mention.word_end) else _FIRST_WORD
    score += _price(text, mention)
    company = _company(text, mention, mentions, settled)
    score += company
    if mention.certainty is Certainty.LIKELY and not company and len(around.words) > _LONG and not _talks_of_trade(around):
        score += _LONG_WITHOUT
    score += _words_around(around, first, last, common=mention.certainty is Certainty.COMMON)
    score += _words_against(around, first, last, against)
    return score


def _talks_of_trade(around: _Surroundings) -> bool:
    return any(kind in (Kind.MARKET, Kind.MOTION) for kind in around.kinds)


def _price(text: str, mention: Mention) -> float:
    match = _PRICE.match(text, mention.word_end)
    if match is None:
        return _PRICE_ELSEWHERE if _ANY_PRICE.search(text) else 0.0
    unit = match["unit"]
    if unit is None:
        # 레이어2, 아이온2: with a number glued to it, it is another word.
        if text[mention.end : mention.end + 1].isdigit():
            return _NUMBERED if mention.certainty > Certainty.LIKELY else 0.0
        if match["sign"]:
            return _PRICED_SIGNED
        return _PRICED_DECIMAL if "." in match["number"].rstrip(".,") else _PRICED_BARE
    return _PRICED.get(unit, _PRICED_WON)


def _company(text: str, mention: Mention, mentions: list[Mention], settled: set[int]) -> float:
    """What other names say: beside it in a list, or elsewhere in the text."""
    best = 0.0
    for other in mentions:
        if other is mention:
            continue
        if other.symbol == mention.symbol:
            if id(other) in settled or text[other.start : other.end] != text[mention.start : mention.end]:
                return _SAME_COIN
            continue
        left, right = sorted((mention, other), key=lambda each: each.start)
        beside = _LIST_MARK.fullmatch(text, left.word_end, right.start) is not None
        if id(other) in settled:
            best = max(best, _LISTED if beside else _COIN_ELSEWHERE)
        elif beside:
            best = max(best, _LISTED_UNSURE)
    return best


def _words_around(around: _Surroundings, first: int, last: int, *, common: bool) -> float:
    near = far = everyday = 0.0
    for place, kind in enumerate(around.kinds):
        if kind is None or kind is Kind.NONE:
            continue
        behind = place > last
        distance = place - last if behind else first - place
        if kind is Kind.EVERYDAY:
            everyday += _EVERYDAY_NEAR if distance <= _NEAR else _EVERYDAY_FAR
            continue
        weights = (_BEHIND if behind else _BEFORE)[kind]
        if distance <= len(weights):
            near += weights[distance - 1] * (_OF_COMMON[kind] if common else 1.0)
        elif kind is Kind.MARKET:
            far += _FAR_MARKET
    return min(near, _MOST_FOR) + min(far, _MOST_FAR) + max(everyday, _MOST_EVERYDAY)


def _words_against(around: _Surroundings, first: int, last: int, against: tuple[str, ...]) -> float:
    if not against:
        return 0.0
    worst = 0.0
    for place, word in enumerate(around.words):
        if first <= place <= last or not _speaks_against(word, against):
            continue
        distance = place - last if place > last else first - place
        if distance == 1 and place > last:
            return _AGAINST_NEXT
        worst = min(worst, _AGAINST_NEAR if distance <= _NEAR else _AGAINST_FAR)
    return worst


def _speaks_against(word: str, against: tuple[str, ...]) -> bool:
    for other in against:
        if len(other) > 1:
            if word.startswith(other):
                return True
        elif word.startswith(other) and PLAIN_PARTICLE.fullmatch(word, 1):
            return True
    return False
