"""The rules by name: so that each can be measured, and what each found be counted."""

from enum import Enum


class Found(Enum):
    """By which way a name was found in the text."""

    NAME = "sure name"
    LIKELY = "likely name"
    LEANING = "leaning name"
    AMBIGUOUS = "everyday word"
    COMMON = "everyday thing"
    SEVERAL_WORDS = "name of several words"
    INSIDE = "name inside a word"
    TICKER = "ticker"
    UNSURE_TICKER = "ticker like a word"
    MARKED_TICKER = "$ticker, pair or contract"


class Rule(Enum):
    """What may speak for or against an unsure name; ``worker.coins.measure`` leaves each out in turn."""

    GLUED = "market word or amount glued to it"
    FIRST = "first word of a sentence"
    HEAD = "leaning name at the head of a post"
    PRICE = "price or change behind it"
    COMPANY = "other coins in the text"
    MARKET = "words of the coin market"
    MOTION = "words of prices and trades"
    FAINT = "words that are faint signs"
    EVERYDAY = "words of everyday life"
    AGAINST = "words that speak against this coin"
    LENGTH = "long text without any trade"
