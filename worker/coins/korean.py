"""Reads one Korean word: which names it begins with, and whether its ending fits a name."""

import re
from dataclasses import dataclass
from functools import lru_cache

from worker.coins.catalogue import Certainty
from worker.coins.endings import PARTICLES, SHORT_PARTICLES, STRICT_PARTICLES, tail_pattern
from worker.coins.index import NameIndex, Reading
from worker.coins.vocabulary import Vocabulary

# What people put in front of a name: 갓이더, 흑리플, 우리비트.
_PREFIXES = ("갓", "흑", "개", "좆", "존", "씹", "킹", "똥", "짭", "황", "빚", "우리", "현물", "또", "원화")
# What may stand between two names in one word: 비트랑이더, 이더대신솔라나.
_BETWEEN = re.compile(r"에서|말고|대신|보다|이랑|랑|하고|와|과|이나|나|도|은|는|가")
# How far behind the start of glued market talk the next name may begin: 비트팔아서이더샀다.
_BEHIND_TAIL = 3
# From these lengths on, a sure name is found whatever its ending, and inside a word.
_DISTINCT_START, _DISTINCT = 3, 4
# Names in a row in one word, so that trying how they divide it stays cheap.
_MOST_NAMES = 8


@dataclass(frozen=True, slots=True)
class Part:
    """A reading at ``word[offset : offset + length]``; ``glued`` if market talk is glued to it."""

    offset: int
    length: int
    reading: Reading
    glued: bool


class KoreanReader:
    """Reads Korean words. What a word says does not depend on its neighbours, so it is cached."""

    def __init__(self, index: NameIndex, words: Vocabulary, *, cached: int) -> None:
        self._names = index.hangul
        self._against = {
            symbol: tuple(word for word in against if not word.startswith("="))
            for symbol, against in index.against.items()
        }
        self._lengths = sorted({len(name) for name in index.hangul}, reverse=True)
        self._firsts = frozenset(name[0] for name in index.hangul)
        self._tail = tail_pattern((*words.tails, *words.noun_tails))
        # 솔산 and 솔박스 are words of their own, so a name of one syllable has fewer tails.
        self._longer_tail = tail_pattern((*words.tails, *words.noun_tails, *words.trading))
        self._noun_tail = tail_pattern(words.noun_tails)
        self._last_tails = frozenset(words.last_tails)
        self._false_friends = tuple(words.false_friends)
        self.read = lru_cache(maxsize=cached)(self._read)

    def is_ending(self, ending: str, certainty: Certainty, *, length: int = 2) -> bool:
        """Whether a name of that many syllables can end a word with this behind it."""
        return self._is_particle(ending, certainty, length) or self.is_tail(ending, certainty, length=length)

    def is_tail(self, ending: str, certainty: Certainty, *, length: int = 2) -> bool:
        """Whether this begins with a word that people glue to names, or is one that must end the word."""
        return self._tail_end(ending, certainty, length) is not None

    def _tail_end(self, ending: str, certainty: Certainty, length: int) -> int | None:
        """Where the word ends that is glued to a name of that many syllables."""
        if certainty <= Certainty.LIKELY and ending in self._last_tails:
            return len(ending)
        if certainty > Certainty.LIKELY:
            pattern = self._noun_tail
        else:
            pattern = self._tail if length == 1 else self._longer_tail
        match = pattern.match(ending)
        return match.end() if match else None

    @staticmethod
    def _is_particle(ending: str, certainty: Certainty, length: int) -> bool:
        if length == 1:
            pattern = SHORT_PARTICLES
        elif certainty <= Certainty.LIKELY:
            pattern = PARTICLES
        else:
            pattern = STRICT_PARTICLES
        return pattern.fullmatch(ending) is not None

    def _read(self, word: str) -> tuple[Part, ...]:
        parts = self._from(word, 0, _MOST_NAMES)
        if parts:
            return () if self._is_false_friend(word, parts[0]) else parts
        for prefix in _PREFIXES if word.startswith(_PREFIXES) else ():
            if word.startswith(prefix):
                parts = self._from(word, len(prefix), _MOST_NAMES)
                if parts and parts[0].length > 1 and parts[0].reading.certainty <= Certainty.LIKELY:
                    return parts
        return self._inside(word)

    def _from(self, word: str, offset: int, names: int) -> tuple[Part, ...]:
        """At most so many names in a row from an offset to the end of the word; the longest that fit."""
        rest = len(word) - offset
        if not names or rest <= 0 or word[offset] not in self._firsts:
            return ()
        for length in self._lengths:
            reading = self._names.get(word[offset : offset + length]) if length <= rest else None
            if reading is not None:
                parts = self._ended(word, offset, length, reading, names)
                if parts:
                    return parts
        return ()

    def _ended(
        self, word: str, offset: int, length: int, reading: Reading, names: int, /
    ) -> tuple[Part, ...]:
        ending = word[offset + length :]
        others: tuple[Part, ...] = ()
        if ending and reading.certainty <= Certainty.LIKELY:
            between = _BETWEEN.match(ending)
            for skip in (0, between.end()) if between else (0,):
                others = self._next(word, offset + length + skip, length, names - 1)
                if others:
                    break
        # 리플도지: 도 and 지 are particles, too.
        if others and others[0].length > 1:
            return (Part(offset, length, reading, glued=True), *others)
        if self._is_particle(ending, reading.certainty, length):
            return (Part(offset, length, reading, glued=False),)
        if ending.startswith(self._against.get(reading.symbol, ())):
            return ()
        tail = self._tail_end(ending, reading.certainty, length)
        if tail is not None:
            behind = self._behind_tail(word, offset + length, tail, names - 1)
            return (Part(offset, length, reading, glued=True), *behind)
        if others:
            return (Part(offset, length, reading, glued=True), *others)
        distinct = reading.certainty is Certainty.SURE and length >= _DISTINCT_START
        return (Part(offset, length, reading, glued=False),) if distinct else ()

    def _next(self, word: str, offset: int, length: int, names: int) -> tuple[Part, ...]:
        """The names from an offset on, if they can stand behind one of that many syllables."""
        others = self._from(word, offset, names)
        if not others or not self._continues(others, length) or self._is_false_friend(word, others[0]):
            return ()
        return others

    def _behind_tail(self, word: str, start: int, tail: int, names: int) -> tuple[Part, ...]:
        """The names behind market talk that is glued to one before: 비트롱이더숏."""
        for offset in range(start + 1, min(len(word), start + tail + _BEHIND_TAIL)):
            others = self._next(word, offset, 1, names)
            if others:
                return others
        return ()

    def _is_false_friend(self, word: str, part: Part) -> bool:
        """Whether the word goes on at this name as another word that begins with it: 비트이더라."""
        rest = word[part.offset :]
        return rest.startswith(self._false_friends) and any(
            len(friend) > part.length and rest.startswith(friend) for friend in self._false_friends
        )

    @staticmethod
    def _continues(others: tuple[Part, ...], length: int) -> bool:
        """Whether these names can stand behind one of that many syllables.

        One syllable only behind a longer name: 비트이더솔, not the 솔 of 비트솔루션 or of 비트솔팔았다.
        """
        first = others[0]
        fits = first.length > 1 or (length > 1 and (len(others) > 1 or not first.glued))
        return fits and first.reading.certainty <= Certainty.LIKELY

    def _inside(self, word: str) -> tuple[Part, ...]:
        for offset in range(1, len(word) - _DISTINCT + 1):
            if word[offset] not in self._firsts:
                continue
            for length in self._lengths:
                if length < _DISTINCT:
                    break
                reading = self._names.get(word[offset : offset + length])
                if reading is not None and reading.certainty is Certainty.SURE:
                    return (Part(offset, len(word[offset : offset + length]), reading, glued=False),)
        return ()
