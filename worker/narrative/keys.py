"""Names of what stands in Redis; all share one hash tag, so one script may change them together.

A colon cannot stand in a coin's symbol, so no coin has this tag::

    kbert:{:narrative}:fences       hash  topic:partition -> last applied offset
    kbert:{:narrative}:months       set   months with articles
    kbert:{:narrative}:m:<YYYY-MM>  hash  a:, n:, p:<source>: articles, negatives, thousandths of probability
"""

from worker.aggregates.keys import Keys


class NarrativeKeys:
    """Key names under one prefix."""

    def __init__(self, prefix: str) -> None:
        self.prefix = Keys(prefix).prefix
        self._tagged = f"{self.prefix}{{:narrative}}:"
        self.fences = f"{self._tagged}fences"
        self.months = f"{self._tagged}months"

    def month(self, month: str) -> str:
        """The sums of one month."""
        return f"{self._tagged}m:{month}"
