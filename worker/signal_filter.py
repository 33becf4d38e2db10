"""Which signals a reader wants: of a stream, of the API, of an export."""

from collections.abc import Collection, Container, Iterable
from dataclasses import dataclass
from typing import Final

from schemas.labels import ACTIONS, EMOTIONS, SENTIMENTS
from schemas.signals import CryptoSignal
from schemas.windows import SYMBOL
from worker.errors import ConfigurationError

_LABELS: Final = {"sentiments": SENTIMENTS, "actions": ACTIONS, "emotions": EMOTIONS}


@dataclass(frozen=True, slots=True)
class SignalFilter:
    """Every condition has to hold; None is no condition.

    Raises:
        ConfigurationError: a condition is an empty set or a string, a label is unknown, or a score is not
            in 0..1: nothing or everything would pass without a word.
    """

    coins: frozenset[str] | None = None
    sentiments: frozenset[str] | None = None
    actions: frozenset[str] | None = None
    emotions: frozenset[str] | None = None
    min_certainty: float = 0.0
    min_relevance: float = 0.0

    def __post_init__(self) -> None:
        if self.coins is not None:
            _check_collection("coins", self.coins)
        for name, known in _LABELS.items():
            given: frozenset[str] | None = getattr(self, name)
            if given is None:
                continue
            _check_collection(name, given)
            if unknown := sorted(given.difference(known)):
                raise ConfigurationError(f"{name} has no {unknown[0]!r}: there are {', '.join(known)}.")
        for name in ("min_certainty", "min_relevance"):
            score: float = getattr(self, name)
            if not 0 <= score <= 1:
                raise ConfigurationError(f"{name} is {score:g}: give a number from 0 to 1.")

    def passes(self, signal: CryptoSignal) -> bool:
        """Whether the signal is wanted; of coins and emotions one is enough."""
        return (
            (self.coins is None or not self.coins.isdisjoint(signal.coins))
            and (self.sentiments is None or signal.sentiment_strength in self.sentiments)
            and (self.actions is None or signal.action_signal in self.actions)
            and (self.emotions is None or not self.emotions.isdisjoint(signal.emotions))
            and signal.certainty >= self.min_certainty
            and signal.relevance >= self.min_relevance
        )

    def names(self, symbols: Collection[str]) -> bool:
        """Whether a change of these symbols is wanted."""
        return self.coins is None or not self.coins.isdisjoint(symbols)


def as_set(name: str, values: Collection[str] | None) -> frozenset[str] | None:
    """The values as a set for a `SignalFilter`; None where there are none to keep to.

    Raises:
        ConfigurationError: they are one string, whose letters a set would hold.
    """
    if values is None:
        return None
    _check_collection(name, values)
    return frozenset(values)


def check_symbols(coins: Iterable[str]) -> None:
    """Raise ConfigurationError for what is no coin symbol as signals have it."""
    for coin in coins:
        if not SYMBOL.fullmatch(coin):
            raise ConfigurationError(
                f"coins has {coin!r}: write symbols as signals have them, in capitals, such as BTC."
            )


def check_coins(coins: Iterable[str], catalogue: Container[str]) -> None:
    """Raise ConfigurationError for a coin that no signal can name, because ``catalogue`` has none of it."""
    for coin in coins:
        if coin not in catalogue:
            meant = f"write {coin.upper()}" if coin.upper() in catalogue else "kbert watch shows the coins"
            raise ConfigurationError(
                f"No signal can name {coin}, a symbol neither of the catalogue nor of coins.user_file "
                f"(KBERT_COINS__USER_FILE): {meant}."
            )


def _check_collection(name: str, values: Collection[str]) -> None:
    if isinstance(values, str):
        raise ConfigurationError(f"{name} is the string {values!r}: give a list, [{values!r}].")
    if not values:
        raise ConfigurationError(f"{name} is empty, so no signal passes: leave it out for all of them.")
