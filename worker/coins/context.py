"""Whether the words around a name make a coin of it.

Every sign adds to a score, and above zero the name is a coin. The scores were set by hand on a part of
the labelled lines; ``python -m worker.coins.measure`` says what each rule brings.
"""

import re
from bisect import bisect_left
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from worker.coins.catalogue import Certainty
from worker.coins.mention import Mention
from worker.coins.rules import Rule
from worker.coins.vocabulary import Against, Kind, kind_of

_WORD = re.compile(r"[가-힣]{1,40}|[A-Za-z]{1,40}|[ㄱ-ㅎ]{2,40}|\d[\d,.]{0,40}")
# A number with what it counts, right behind a name: a price, a change, an amount. Possessive, since
# 262,000 spaces behind a name, shared out between two \s*, took minutes.
_PRICE = re.compile(
    r"\s*+[(\[]?+(?P<sign>[+\-–▲▼↑↓])?+\s*+(?P<number>\d[\d,.]*)\s*"
    r"(?P<unit>%|퍼|프로|불|달러|층|만불|만달러|천불|원(?!짜리|어치)|만원|천원|[kK]\b|배|\$|→|->)?"
)
_ANY_PRICE = re.compile(r"\d(?:%|퍼|불|달러|만불|원|만원|천원)")
# What stands between the coins of a list: 이더·솔·수이, 비트랑 이더, 솔60 수이20.
_LIST_MARK = re.compile(r"[\s·,/&+\-→>~\d.%]*(?:(?:vs|VS|대신|말고)[\s.]*)?")
_SENTENCE_ENDS = frozenset(".…!?\n]|“‘\"'")

_PRIOR = {
    Certainty.LIKELY: 3.0,
    Certainty.LEANING: -1.5,
    Certainty.AMBIGUOUS: -2.0,
    Certainty.COMMON: -3.0,
}
# By how many words away: a verb of trading right behind the name says most.
_BEHIND = {Kind.MARKET: (4.0, 3.0, 2.0, 1.5), Kind.MOTION: (3.0, 2.0, 1.0, 0.5), Kind.FAINT: (2.0, 1.0)}
_BEFORE: dict[Kind, tuple[float, ...]] = {
    Kind.MARKET: (2.5, 2.0, 1.0),
    Kind.MOTION: (1.5, 0.5),
    Kind.FAINT: (),
}
_FAR = {Kind.MARKET: 0.7, Kind.MOTION: 0.3, Kind.FAINT: 0.0}
_MOST_NEAR, _MOST_FAR = 6.0, 2.0
# Of an everyday thing it is said, too, that it rises, falls and is bought.
_OF_COMMON = {Kind.MARKET: 1.0, Kind.MOTION: 0.6, Kind.FAINT: 0.0}
_NEAR = 3
_EVERYDAY_NEAR, _EVERYDAY_FAR, _MOST_EVERYDAY = -1.5, -0.7, -3.0
_AGAINST_NEXT, _AGAINST_NEAR, _AGAINST_FAR = -8.0, -6.0, -3.0
_GLUED = 5.0
_FIRST_WORD, _HEADING = 1.5, 2.0
# A post is about its first word: for a name that leans that is enough.
_HEAD_OF_POST = 0.6
_LISTED, _LISTED_UNSURE, _COIN_ELSEWHERE, _SAME_COIN = 4.0, 2.5, 2.1, 4.0
_PRICED = dict.fromkeys(("%", "퍼", "불", "달러", "층", "만불", "만달러", "천불", "$"), 4.0) | {"원": 3.0}
_PRICED_OTHERWISE, _PRICED_SIGNED, _PRICED_DECIMAL, _PRICED_BARE = 2.0, 3.0, 2.5, 0.5
# Everyday things have prices, too, though seldom as low as coins.
_PRICE_OF_COMMON = 0.7
_NUMBERED, _PRICE_ELSEWHERE = -3.0, 1.0
_LONG_TEXT, _LONG_WITHOUT_TRADE = 6, -1.0

# 숫자를 보라: behind an object a bare name that is an imperative, too, is the verb.
_IMPERATIVES = frozenset({"보라"})
_OBJECT = re.compile(r"[을를]\s?$")

# Bounds, so that a text of 10,000 characters costs no more than its length: words and names looked at on
# either side, and how often one name is judged.
_WORDS_AROUND, _NAMES_AROUND, _JUDGED = 40, 12, 8

_KIND_RULES = {Kind.MARKET: Rule.MARKET, Kind.MOTION: Rule.MOTION, Kind.FAINT: Rule.FAINT}


@dataclass(frozen=True, slots=True)
class _Words:
    """The words of a text; the kind is None for one that belongs to a name."""

    starts: list[int]
    words: list[str]
    kinds: list[Kind | None]
    talks_of_trade: bool
    names_a_price: bool


@dataclass(frozen=True, slots=True)
class _Place:
    """A mention among the words: its first and last word, and how much of the text is looked at."""

    mention: Mention
    first: int
    last: int
    low: int
    high: int


class Judge:
    """Decides which unsure names are coins; ``without`` leaves rules out, to measure them."""

    def __init__(
        self, against: Mapping[str, tuple[str, ...]], *, without: frozenset[Rule] = frozenset()
    ) -> None:
        self._against = {symbol: Against.of(words) for symbol, words in against.items()}
        self._without = without

    def keep(self, text: str, mentions: list[Mention]) -> list[Mention]:
        """Leave out the names that mean something else here."""
        words = _words_of(text, mentions)
        settled = {mention for mention in mentions if mention.certainty is Certainty.SURE}
        # Twice, so that a name that the words made sure of helps the ones beside it.
        for _ in range(2):
            judged: Counter[str] = Counter()
            for number, mention in enumerate(mentions):
                name = text[mention.start : mention.end]
                if mention in settled or judged[name] >= _JUDGED:
                    continue
                judged[name] += 1
                others = mentions[max(0, number - _NAMES_AROUND) : number + _NAMES_AROUND + 1]
                if self._score(text, _placed(mention, words), others, settled, words) > 0:
                    settled.add(mention)
        return [mention for mention in mentions if mention in settled]

    def _score(
        self, text: str, place: _Place, others: list[Mention], settled: set[Mention], words: _Words, /
    ) -> float:
        mention = place.mention
        company = _company(text, mention, others, settled)
        opposing = self._opposing(place, words, text[mention.start : mention.end])
        leans = mention.certainty is Certainty.LEANING
        scores = {
            Rule.GLUED: _GLUED if mention.glued else 0.0,
            Rule.FIRST: _position(text, place),
            Rule.HEAD: _HEAD_OF_POST if leans and not place.first else 0.0,
            Rule.PRICE: _price(text, mention, words),
            Rule.COMPANY: company,
            Rule.EVERYDAY: _everyday(place, words),
            Rule.AGAINST: _opposition(place, opposing) + _imperative(text, mention),
            Rule.LENGTH: 0.0,
        }
        if (
            mention.certainty is Certainty.LIKELY
            and not company
            and not words.talks_of_trade
            and len(words.words) > _LONG_TEXT
        ):
            scores[Rule.LENGTH] = _LONG_WITHOUT_TRADE
        counted = (score for rule, score in scores.items() if rule not in self._without)
        return _PRIOR[mention.certainty] + sum(counted) + self._trading(place, words, opposing)

    def _trading(self, place: _Place, words: _Words, opposing: list[int]) -> float:
        common = place.mention.certainty is Certainty.COMMON
        near = far = 0.0
        for at in range(place.low, place.high):
            kind = words.kinds[at]
            rule = _KIND_RULES.get(kind) if kind is not None else None
            if kind is None or rule is None or rule in self._without or at in opposing:
                continue
            weights = (_BEHIND if at > place.last else _BEFORE)[kind]
            distance = _distance(place, at)
            if distance <= len(weights):
                near += weights[distance - 1] * (_OF_COMMON[kind] if common else 1.0)
            else:
                far += _FAR[kind]
        return min(near, _MOST_NEAR) + min(far, _MOST_FAR)

    def _opposing(self, place: _Place, words: _Words, name: str) -> list[int]:
        """Where words stand that give this name its everyday meaning.

        Those of the market alone do not with a ticker in capitals: 에어드랍 링크 is a link, LINK 에어드랍 the
        coin.
        """
        against = self._against.get(place.mention.symbol)
        if against is None or Rule.AGAINST in self._without:
            return []
        opposing = [
            at
            for at in range(place.low, place.high)
            if not place.first <= at <= place.last and against.speaks(words.words[at])
        ]
        likely = place.mention.certainty is Certainty.LIKELY and name.isascii() and name.isupper()
        return [] if likely and all(words.kinds[at] is Kind.MARKET for at in opposing) else opposing


def _words_of(text: str, mentions: list[Mention]) -> _Words:
    starts, words = [], []
    for match in _WORD.finditer(text):
        starts.append(match.start())
        words.append(match.group().lower())
    kinds: list[Kind | None] = [kind_of(word) for word in words]
    for mention in mentions:
        first, end = _span(mention, starts, words)
        kinds[first:end] = [None] * (end - first)
    return _Words(
        starts,
        words,
        kinds,
        talks_of_trade=Kind.MARKET in kinds or Kind.MOTION in kinds,
        names_a_price=_ANY_PRICE.search(text) is not None,
    )


def _span(mention: Mention, starts: list[int], words: list[str]) -> tuple[int, int]:
    """The first of its words, and the one behind its last."""
    first = bisect_left(starts, mention.start)
    if first and mention.start < starts[first - 1] + len(words[first - 1]):
        first -= 1  # a name behind a prefix: 갓비트
    return first, max(first, bisect_left(starts, mention.word_end))


def _placed(mention: Mention, words: _Words) -> _Place:
    first, end = _span(mention, words.starts, words.words)
    last = max(first, end - 1)
    low, high = max(0, first - _WORDS_AROUND), min(len(words.words), last + _WORDS_AROUND + 1)
    return _Place(mention, first, last, low, high)


def _distance(place: _Place, at: int) -> int:
    return at - place.last if at > place.last else place.first - at


def _position(text: str, place: _Place) -> float:
    """A post about a coin begins with it; a headline puts a comma behind it."""
    before = place.mention.start - 1
    while before >= 0 and text[before] == " ":
        before -= 1
    if place.first and text[before] not in _SENTENCE_ENDS:
        return 0.0
    return _HEADING if text.startswith(",", place.mention.word_end) else _FIRST_WORD


def _imperative(text: str, mention: Mention) -> float:
    if text[mention.start : mention.word_end] not in _IMPERATIVES:
        return 0.0
    before = text[max(0, mention.start - 2) : mention.start]
    return _AGAINST_NEXT if _OBJECT.search(before) else 0.0


def _price(text: str, mention: Mention, words: _Words) -> float:
    match = _PRICE.match(text, mention.word_end)
    if match is None:
        return _PRICE_ELSEWHERE if words.names_a_price else 0.0
    if match["unit"] is not None:
        share = _PRICE_OF_COMMON if mention.certainty is Certainty.COMMON else 1.0
        return share * _PRICED.get(match["unit"], _PRICED_OTHERWISE)
    # 레이어2, 아이온2: with a number glued to it, an everyday word is another word.
    if text[mention.end].isdigit():
        return _NUMBERED if mention.certainty > Certainty.LIKELY else 0.0
    if match["sign"]:
        return _PRICED_SIGNED
    return _PRICED_DECIMAL if "." in match["number"].rstrip(".,") else _PRICED_BARE


def _company(text: str, mention: Mention, others: list[Mention], settled: set[Mention]) -> float:
    """What other names say: beside it in a list, or elsewhere in the text."""
    best = 0.0
    for other in others:
        if other is mention:
            continue
        if other.symbol == mention.symbol:
            if other in settled or text[other.start : other.end] != text[mention.start : mention.end]:
                return _SAME_COIN
            continue
        left, right = (mention, other) if mention.start < other.start else (other, mention)
        beside = _LIST_MARK.fullmatch(text, left.word_end, right.start) is not None
        if other in settled:
            best = max(best, _LISTED if beside else _COIN_ELSEWHERE)
        elif beside:
            best = max(best, _LISTED_UNSURE)
    return best


def _opposition(place: _Place, opposing: list[int]) -> float:
    if place.last + 1 in opposing:
        return _AGAINST_NEXT
    if not opposing:
        return 0.0
    nearest = min(_distance(place, at) for at in opposing)
    return _AGAINST_NEAR if nearest <= _NEAR else _AGAINST_FAR


def _everyday(place: _Place, words: _Words) -> float:
    score = 0.0
    for at in range(place.low, place.high):
        if words.kinds[at] is Kind.EVERYDAY:
            score += _EVERYDAY_NEAR if _distance(place, at) <= _NEAR else _EVERYDAY_FAR
    return max(score, _MOST_EVERYDAY)
