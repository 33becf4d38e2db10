"""The word lists of ``context_words.toml``, and what a word tells by them."""

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from functools import lru_cache
from pathlib import Path

from worker.coins.endings import PLAIN_PARTICLE, PLAIN_PARTICLES

_FILE = Path(__file__).with_name("context_words.toml")
# 개쏜다, 안쳐다본다, 다팔았다: what makes a word of trading stronger, or denies it.
_STRENGTHENING = (
    "개",
    "안",
    "못",
    "더",
    "다",
    "또",
    "존나",
    "존",
    "막",
    "확",
    "쭉",
    "왜",
    "겁나",
    "너무",
    "다시",
)
# Endings of verbs: a verb is looked for at the start of a word only, or 타고 would speak in 갈아타고.
_VERBAL = tuple("아어려여겨러고면는니던린힌르았었")
_CACHED = 1 << 16


class Kind(Enum):
    """What a word tells about the talk that it stands in."""

    MARKET = "market"
    MOTION = "motion"
    FAINT = "faint"
    EVERYDAY = "everyday"
    NONE = ""


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """The lists; ``starts`` by the first two letters, longest first.

    ``trading``: words of the market, of prices and trades that may be glued to a name, of two syllables
    and more.
    """

    exact: Mapping[str, Kind]
    starts: Mapping[str, Sequence[tuple[str, Kind]]]
    tails: Sequence[str]
    noun_tails: Sequence[str]
    last_tails: Sequence[str]
    trading: Sequence[str]
    false_friends: Sequence[str]


@lru_cache(maxsize=1)
def vocabulary() -> Vocabulary:
    """Return the word lists, read once."""
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
    trading = [
        word
        for word in (*lists["market"], *lists["motion"])
        if len(word) > 1 and "가" <= word[0] <= "힣" and word.isalnum() and word not in lists["no_tails"]
    ]
    return Vocabulary(
        exact,
        starts,
        lists["tails"],
        lists["noun_tails"],
        lists["last_tails"],
        trading,
        lists["false_friends"],
    )


@lru_cache(maxsize=_CACHED)
def kind_of(word: str) -> Kind:
    """Class one word (Korean, or Latin in lower case), whatever ending it has."""
    kind = _kind_of(word)
    if kind is not Kind.NONE:
        return kind
    for prefix in _STRENGTHENING:
        if word.startswith(prefix) and len(word) >= len(prefix) + 2:
            inner = _kind_of(word[len(prefix) :])
            return Kind.NONE if inner is Kind.EVERYDAY else inner
    return Kind.NONE


def _kind_of(word: str) -> Kind:
    words = vocabulary()
    kind = words.exact.get(word)
    if kind is not None:
        return kind
    for start, start_kind in words.starts.get(word[:2], ()):
        if word.startswith(start):
            return start_kind
    # 샀는데, 갔다가, 쐈던: a past stem needs no look at its ending.
    if _is_past_stem(word[0]) or PLAIN_PARTICLE.fullmatch(word, 1):
        return words.exact.get(word[0], Kind.NONE)
    return Kind.NONE


def _is_past_stem(syllable: str) -> bool:
    """Whether it ends in ㅆ."""
    return "가" <= syllable <= "힣" and (ord(syllable) - ord("가")) % 28 == 20


@dataclass(frozen=True, slots=True)
class Against:
    """Words that give a name its everyday meaning.

    ``starts``: what a word may begin with. ``nouns``: what it may end with. ``whole``: words that count
    only as they are, with particles: those of one syllable, and those marked with ``=``.
    """

    starts: tuple[str, ...]
    nouns: tuple[str, ...]
    whole: frozenset[str]

    @classmethod
    def of(cls, words: Sequence[str]) -> "Against":
        """Sort the words of a coin by how they count."""
        starts = tuple(word for word in words if len(word) > 1 and not word.startswith("="))
        nouns = tuple(word for word in starts if not word.endswith(_VERBAL))
        alone = {word.removeprefix("=") for word in words}.difference(starts)
        return cls(starts, nouns, frozenset(word + end for word in alone for end in ("", *PLAIN_PARTICLES)))

    def speaks(self, word: str) -> bool:
        """Whether a word near the name is one of them."""
        return word in self.whole or word.startswith(self.starts) or word.endswith(self.nouns)
