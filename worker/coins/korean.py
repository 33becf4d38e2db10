"""Reads one Korean word: which names it begins with, and whether its ending fits a name."""

import re
from dataclasses import dataclass
from functools import lru_cache

from worker.coins.catalogue import Certainty
from worker.coins.context import Vocabulary
from worker.coins.endings import PARTICLES, SHORT_PARTICLES, STRICT_PARTICLES, tail_pattern
from worker.coins.index import NameIndex, Reading

# What people put in front of a name: 갓이더, 흑리플, 우리비트.
_PREFIXES = ("갓", "흑", "개", "좆", "존", "씹", "킹", "똥", "짭", "황", "빚", "우리", "현물", "또")
# A name glued to another one: 비트이더, 비트랑이더.
_BETWEEN = re.compile(r"이랑|랑|하고|와|과|이나|나|도")
# From these lengths on, a sure name is found whatever its ending, and inside a word.
_DISTINCT_START, _DISTINCT = 3, 4


@dataclass(frozen=True, slots=True)
class Found:
    """A reading at ``word[offset : offset + length]``; ``glued`` if market talk is glued to it."""

    offset: int
    length: int
    reading: Reading
    glued: bool


class KoreanReader:
    """Reads Korean words; what a word says does not depend on its neighbours, so it is cached."""

    def __init__(self, index: NameIndex, words: Vocabulary, *, cached: int) -> None:
        self._names = index.hangul
        self._against = index.against
        self._lengths = sorted({len(name) for name in index.hangul}, reverse=True)
        self._firsts = frozenset(name[0] for name in index.hangul)
        self._tail = tail_pattern((*words.tails, *words.noun_tails))
        self._noun_tail = tail_pattern(words.noun_tails)
        self._false_friends = tuple(words.false_friends)
        self.read = lru_cache(maxsize=cached)(self._read)

    def _read(self, word: str) -> tuple[Found, ...]:
        found = self._from(word, 0)
        if found:
            name = word[: found[0].length]
            if any(word.startswith(friend) and len(friend) > len(name) for friend in self._false_friends):
                return ()
            return found
        for prefix in _PREFIXES:
            if word.startswith(prefix):
                found = self._from(word, len(prefix))
                if found and found[0].length > 1 and found[0].reading.certainty <= Certainty.LIKELY:
                    return found
        return self._inside(word)

    def _from(self, word: str, offset: int) -> tuple[Found, ...]:
        """Names in a row from an offset to the end of the word; the longest that fits."""
        rest = len(word) - offset
        if rest <= 0 or word[offset] not in self._firsts:
            return ()
        for length in self._lengths:
            if length > rest:
                continue
            reading = self._names.get(word[offset : offset + length])
            if reading is None:
                continue
            found = self._ended(word, offset, length, reading)
            if found:
                return found
        return ()

    def _ended(self, word: str, offset: int, length: int, reading: Reading) -> tuple[Found, ...]:
        ending = word[offset + length :]
        if self.is_particle(ending, length, reading.certainty):
            return (Found(offset, length, reading, glued=False),)
        if ending.startswith(self._against.get(reading.symbol, ())):
            return ()
        if self.is_tail(ending, reading.certainty):
            return (Found(offset, length, reading, glued=True),)
        if reading.certainty <= Certainty.LIKELY:
            between = _BETWEEN.match(ending)
            for skip in {0, between.end() if between else 0}:
                following = self._from(word, offset + length + skip)
                if following and following[0].length > 1 and following[0].reading.certainty <= Certainty.LIKELY:
                    return (Found(offset, length, reading, glued=True), *following)
        if reading.certainty is Certainty.SURE and length >= _DISTINCT_START:
            return (Found(offset, length, reading, glued=False),)
        return ()

    @staticmethod
    def is_particle(ending: str, length: int, certainty: Certainty) -> bool:
        """Whether a name of that many syllables can be followed by this and no more."""
        if length == 1:
            pattern = SHORT_PARTICLES
        elif certainty <= Certainty.LIKELY:
            pattern = PARTICLES
        else:
            pattern = STRICT_PARTICLES
        return pattern.fullmatch(ending) is not None

    def is_tail(self, ending: str, certainty: Certainty) -> bool:
        """Whether this begins with a word that people glue to names."""
        pattern = self._tail if certainty <= Certainty.LIKELY else self._noun_tail
        return pattern.match(ending) is not None

    def _inside(self, word: str) -> tuple[Found, ...]:
        for offset in range(1, len(word) - _DISTINCT + 1):
            if word[offset] not in self._firsts:
                continue
            for length in self._lengths:
                if length < _DISTINCT:
                    break
                reading = self._names.get(word[offset : offset + length])
                if reading is not None and reading.certainty is Certainty.SURE and offset + length <= len(word):
                    return (Found(offset, length, reading, glued=False),)
        return ()
