"""Names of everything that stands in Redis.

All keys of a coin carry its hash tag, so they share one slot of a Redis Cluster::

    kbert:{BTC}:state          hash   topic:partition -> last applied offset; first, newest: event times
    kbert:{BTC}:m:<hour>       string 60 minute buckets of an hour, see `buckets.ROW`
    kbert:{BTC}:h:<day>        string 24 hour buckets of a day
    kbert:{BTC}:mu:<minute>    HyperLogLog of the authors of a minute
    kbert:{BTC}:hu:<hour>      HyperLogLog of the authors of an hour
    kbert:coins                set    every symbol that ever had a signal
    kbert:changes              channel of `schemas.AggregateChange`

Minutes, hours and days are numbered from 1970-01-01T00:00Z.
"""

from functools import lru_cache
from re import compile as regex

from worker.errors import ConfigurationError

DEFAULT_PREFIX = "kbert:"

_SYMBOL = regex(r"[^\s{}:]{1,32}")


class Keys:
    """Key names under one prefix."""

    def __init__(self, prefix: str = DEFAULT_PREFIX) -> None:
        if "{" in prefix or "}" in prefix:
            raise ConfigurationError(
                f"redis.prefix (KBERT_REDIS__PREFIX) is {prefix!r}: braces in it would move the keys "
                "of one coin to different slots of a Redis Cluster; leave them out."
            )
        self.prefix = prefix
        self.coins = f"{prefix}coins"
        self.changes = f"{prefix}changes"

    def state(self, symbol: str) -> str:
        """Fences and first and newest event time."""
        return f"{self.prefix}{{{symbol}}}:state"

    def minutes(self, symbol: str, hour: int) -> str:
        """The 60 minute buckets of ``hour``."""
        return f"{self.prefix}{{{symbol}}}:m:{hour}"

    def hours(self, symbol: str, day: int) -> str:
        """The 24 hour buckets of ``day``."""
        return f"{self.prefix}{{{symbol}}}:h:{day}"

    def minute_authors(self, symbol: str, minute: int) -> str:
        """HyperLogLog of one minute."""
        return f"{self.prefix}{{{symbol}}}:mu:{minute}"

    def hour_authors(self, symbol: str, hour: int) -> str:
        """HyperLogLog of one hour."""
        return f"{self.prefix}{{{symbol}}}:hu:{hour}"


@lru_cache(maxsize=65_536)
def is_symbol(text: str) -> bool:
    """Whether ``text`` can stand in a key: 1 to 32 characters, no white space, brace or colon."""
    return _SYMBOL.fullmatch(text) is not None
