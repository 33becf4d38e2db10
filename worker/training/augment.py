"""Changing a text as people change it when they type, without changing what it means."""

import random
import re
from collections.abc import Callable
from typing import Final

_RUN: Final = re.compile(r"([ㅋㅎㅠㅜㄷㄱㅇ!?.~^])\1+")
_END: Final = re.compile(r"[.!~…]+$")
_MARKS: Final = re.compile(r"[\"'“”‘’,.·]")
_NUMBER: Final = re.compile(r"\d{2,}")
_SYLLABLES: Final = (0xAC00, 0xD7A3)
_SIMILAR_VOWELS: Final = {1: 5, 5: 1, 3: 7, 7: 3, 10: 15, 15: 11, 11: 10}
"""Vowels that are mixed up in typing, by their index in a syllable block: ㅐ/ㅔ, ㅒ/ㅖ, ㅙ/ㅞ/ㅚ."""

# Swapped only within a line, so that the particle after the name still fits and the register stays.
COINS: Final = (
    ("비트", "이더", "도지", "시바", "에이다", "페페", "솔라나", "스텔라", "헤데라", "아발란체", "수이"),
    ("비트코인", "이더리움", "트론", "폴리곤", "도지코인", "월드코인", "리플"),
    ("btc", "eth", "xrp", "sol", "doge", "ada", "trx", "sui", "apt", "link"),
    ("BTC", "ETH", "XRP", "SOL", "DOGE", "ADA", "TRX", "SUI", "APT", "LINK"),
)
_LINE_OF: Final = {name: line for line in COINS for name in line}
_COIN: Final = re.compile(
    r"(?<![0-9A-Za-z가-힣])(" + "|".join(sorted(_LINE_OF, key=len, reverse=True)) + r")(?![A-Za-z])"
)


def swap_coins(text: str, rng: random.Random) -> str:
    """Each coin name becomes another one, the same everywhere in the text."""
    chosen: dict[str, str] = {}

    def other(match: re.Match[str]) -> str:
        name = match.group(1)
        if name not in chosen:
            chosen[name] = rng.choice([n for n in _LINE_OF[name] if n not in chosen.values()])
        return chosen[name]

    return _COIN.sub(other, text)


def drop_spaces(text: str, rng: random.Random) -> str:
    """All spaces go, or each with a chance of a third."""
    share = 1.0 if rng.random() < 0.3 else 0.33
    return "".join(c for c in text if c != " " or rng.random() >= share)


def redraw_runs(text: str, rng: random.Random) -> str:
    """ㅋㅋㅋ, ㅠㅠ, !! and the like get another length."""
    return _RUN.sub(lambda m: m.group(1) * rng.randint(1 if m.group(1) in "!?.~" else 2, 6), text)


def lose_punctuation(text: str, rng: random.Random) -> str:
    """The mark at the end goes, sometimes also commas, points and quotes; question marks stay."""
    stripped = _END.sub("", text)
    return _MARKS.sub(" ", stripped).strip() if rng.random() < 0.3 else stripped


def change_numbers(text: str, rng: random.Random) -> str:
    """Digits behind the first of a number change: the size stays about the same."""
    return _NUMBER.sub(
        lambda m: m.group()[0] + "".join(rng.choice("0123456789") for _ in m.group()[1:]), text
    )


def mistype(text: str, rng: random.Random) -> str:
    """One syllable loses its final consonant, gets a vowel that sounds alike, or swaps with the next."""
    places = [i for i, c in enumerate(text) if _SYLLABLES[0] <= ord(c) <= _SYLLABLES[1]]
    if len(places) < 4:
        return text
    i = rng.choice(places)
    code = ord(text[i]) - _SYLLABLES[0]
    vowel = code // 28 % 21
    if vowel in _SIMILAR_VOWELS:
        code += (_SIMILAR_VOWELS[vowel] - vowel) * 28
    elif code % 28 and rng.random() < 0.5:
        code -= code % 28
    elif i + 1 in places:
        return text[:i] + text[i + 1] + text[i] + text[i + 2 :]
    return text[:i] + chr(code + _SYLLABLES[0]) + text[i + 1 :]


def drop_word(text: str, rng: random.Random) -> str:
    """One word of a text of at least six goes."""
    words = text.split(" ")
    if len(words) < 6:
        return text
    del words[rng.randrange(len(words))]
    return " ".join(words)


_CHANGES: Final[tuple[tuple[float, Callable[[str, random.Random], str]], ...]] = (
    (0.25, drop_spaces),
    (0.5, redraw_runs),
    (0.2, lose_punctuation),
    (0.3, change_numbers),
    (0.15, mistype),
    (0.1, drop_word),
)


def augment(text: str, rng: random.Random, *, has_coins: bool) -> str:
    """The text after a random choice of changes; coin names are swapped only where the text names coins.

    (Where it names none, 리플 is a reply and 비트 a beat.)
    """
    if has_coins and rng.random() < 0.5:
        text = swap_coins(text, rng)
    for chance, change in _CHANGES:
        if rng.random() < chance:
            changed = change(text, rng)
            text = changed if changed.strip() else text
    return text
