"""Short news items made from sentences with slots: data/traffic_briefs.toml says what they are for."""

import random
import re
import tomllib
from functools import cache
from pathlib import Path
from typing import Any, Final

from worker.training.articles import Article

FILE: Final = Path(__file__).parent / "data" / "traffic_briefs.toml"
_SLOT: Final = re.compile(r"\{(\w+)\}(?:(을|를|은|는|이|가|과|와|으로|로)(?![가-힣]))?")
_PARTICLES: Final = {
    form: pair for pair in (("을", "를"), ("은", "는"), ("이", "가"), ("과", "와")) for form in pair
}
"""Forms after a consonant and after a vowel."""
_KINDS: Final = ("other", "negative")
"""By label."""
_RIEUL: Final = 8


@cache
def _grammar() -> dict[str, Any]:
    return tomllib.loads(FILE.read_text("utf-8"))


def fill(template: str, rng: random.Random) -> str:
    """The template with a random filling for each slot."""
    slots = _grammar()["slots"]

    def chosen(match: re.Match[str]) -> str:
        word: str = rng.choice(slots[match.group(1)])
        return word + _particle(word, match.group(2) or "")

    return _SLOT.sub(chosen, template)


def _particle(word: str, particle: str) -> str:
    """The form of a particle that goes with the end of a word."""
    last = word[-1]
    final = (ord(last) - 0xAC00) % 28 if "가" <= last <= "힣" else 0
    if particle in ("로", "으로"):
        return "로" if final in (0, _RIEUL) else "으로"
    after_consonant, after_vowel = _PARTICLES.get(particle, ("", ""))
    return after_consonant if final else after_vowel


def brief(rng: random.Random) -> Article:
    """A title with one or two sentences, of either label alike."""
    label = rng.randint(0, 1)
    kind = _grammar()[_KINDS[label]]
    body = " ".join(fill(template, rng) for template in rng.sample(kind["bodies"], rng.choice((1, 1, 2))))
    return Article.model_validate(
        {"title": fill(rng.choice(kind["titles"]), rng), "body": body, "label": label}
    )
