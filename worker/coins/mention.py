"""A coin's name found in a text."""

from dataclasses import dataclass

from worker.coins.catalogue import Certainty
from worker.coins.rules import Found


@dataclass(slots=True, eq=False)
class Mention:
    """One name: ``text[start:end]``, its written word (with particles, or its pair) up to ``word_end``.

    ``glued``: market talk or an amount is glued to it (비트숏, 3.2솔), which shows that the coin is meant.
    """

    start: int
    end: int
    word_end: int
    symbol: str
    certainty: Certainty
    found: Found
    glued: bool = False
