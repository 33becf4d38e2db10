"""Splitting texts into train, validation and test by hash, near-duplicates kept together."""

import hashlib
import math
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Final, Literal

Part = Literal["train", "validation", "test"]

TEST_SHARE: Final = 0.10
VALIDATION_SHARE: Final = 0.08
NEAR: Final = 0.55
"""Jaccard similarity of character trigrams from which two texts count as one."""

_DIGITS: Final = re.compile(r"\d+")
_OTHER: Final = re.compile(r"[^\w]+|_")
_REPEAT: Final = re.compile(r"(.)\1{2,}")


def canonical(text: str) -> str:
    """The text without case, spaces, punctuation, numbers and drawn-out letters."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    return _REPEAT.sub(r"\1\1", _OTHER.sub("", _DIGITS.sub("0", folded))) or folded


def _trigrams(text: str) -> frozenset[str]:
    return frozenset(text[i : i + 3] for i in range(max(1, len(text) - 2)))


def near_duplicate_groups(texts: Sequence[str]) -> list[int]:
    """A group number for each text; texts linked by a chain of near-duplicates share one."""
    parent = list(range(len(texts)))

    def root(i: int) -> int:
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    grams = [_trigrams(canonical(text)) for text in texts]
    frequency = Counter(gram for own in grams for gram in own)
    holders: defaultdict[str, list[int]] = defaultdict(list)
    for i, own in enumerate(grams):
        # Two near texts share more than the commoner trigrams of either, so a rarer one leads to each pair.
        rarest_first = sorted(own, key=lambda gram: (frequency[gram], gram))
        rarer = rarest_first[: len(own) - math.ceil(NEAR * len(own)) + 1]
        for j in dict.fromkeys(other for gram in rarer for other in holders[gram]):
            common = len(own & grams[j])
            if common >= NEAR * (len(own) + len(grams[j]) - common):
                parent[root(i)] = root(j)
        for gram in rarer:
            holders[gram].append(i)
    return [root(i) for i in range(len(texts))]


def split(texts: Sequence[str]) -> list[Part]:
    """The part of each text, decided by a hash of the first text, in order of the alphabet, of its group.

    The order of the texts plays no role. A new text moves others only where it is close to them: it may come
    first in their group, or join two groups.
    """
    groups = near_duplicate_groups(texts)
    names: dict[int, str] = {}
    for group, text in zip(groups, texts, strict=True):
        name = canonical(text)
        names[group] = min(names.get(group, name), name)
    parts: dict[int, Part] = {}
    for group, name in names.items():
        place = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") / 2**64
        if place < TEST_SHARE:
            parts[group] = "test"
        else:
            parts[group] = "validation" if place < TEST_SHARE + VALIDATION_SHARE else "train"
    return [parts[group] for group in groups]
