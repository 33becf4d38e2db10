"""A coin's name found in a text."""

from dataclasses import dataclass

from worker.coins.catalogue import Certainty


@dataclass(slots=True)
class Mention:
    """One name: ``text[start:end]``, its written word reaching to ``word_end``."""

    start: int
    end: int
    word_end: int
    symbol: str
    certainty: Certainty
    glued: bool = False
    """Market talk is glued to it (비트숏, 3.2솔), so that the coin is meant."""
