"""One article as different outlets would show it: what is left of it, and how it is worded."""

import random
import re
from typing import Final

from worker.training.articles import Article
from worker.training.augment import change_numbers, drop_word, lose_punctuation, mistype

View = tuple[str, str]
"""Title and body; one of them may be empty."""

_SENTENCE: Final = re.compile(r"(?<=[.!?”])\s+")
_PLAIN_END: Final = re.compile(r"([가-힣])다(?=\.)")
_QUOTES: Final = str.maketrans({"“": '"', "”": '"', "‘": "'", "’": "'", "…": "..."})
_SYLLABLE: Final = 0xAC00
_FINALS: Final = 28
_NIEUN, _BIEUP, _SSANG_SIOT = 4, 17, 20
"""Final consonants ㄴ, ㅂ and ㅆ by their index in a syllable block."""


def sentences(body: str) -> list[str]:
    """The sentences of a body."""
    return [sentence for sentence in _SENTENCE.split(body.strip()) if sentence]


def polite(text: str) -> str:
    """Sentences in the plain style of print as broadcast news says them: 했다 to 했습니다, 한다 to 합니다."""

    def ending(match: re.Match[str]) -> str:
        syllable = match.group(1)
        code = ord(syllable) - _SYLLABLE
        final = code % _FINALS
        if final == _SSANG_SIOT or syllable in "있없":
            return f"{syllable}습니다"
        if syllable == "는":
            return "습니다"
        if syllable == "이":
            return "입니다"
        if final == _NIEUN:
            return chr(_SYLLABLE + code - _NIEUN + _BIEUP) + "니다"
        return match.group()

    return _PLAIN_END.sub(ending, text)


def cut(article: Article, rng: random.Random) -> View:
    """The whole article, or a part of it that still tells its story."""
    title, parts = article.title, sentences(article.body)
    if not parts:
        return title, ""
    kind = rng.random()
    if kind < 0.35:
        return title, article.body
    if kind < 0.65:
        return title, ""
    if kind < 0.75:
        return "", article.body
    if kind < 0.90:
        return title, parts[0]
    words = article.body.split()
    return title, " ".join(words[: rng.randint(min(6, len(words)), len(words))])


def reword(text: str, rng: random.Random) -> str:
    """The text after a random choice of changes in register and typing."""
    if rng.random() < 0.25:
        text = polite(text)
    if rng.random() < 0.2:
        text = text.translate(_QUOTES)
    for chance, change in (
        (0.15, lose_punctuation),
        (0.3, change_numbers),
        (0.08, mistype),
        (0.15, drop_word),
    ):
        if rng.random() < chance:
            changed = change(text, rng)
            text = changed if changed.strip() else text
    return text


def view(article: Article, rng: random.Random) -> View:
    """A cut of the article, reworded."""
    title, body = cut(article, rng)
    return reword(title, rng) if title else "", reword(body, rng) if body else ""
