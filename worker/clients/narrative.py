"""The monthly narrative index as a reader sees it."""

from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self

from schemas.narrative import NarrativeMonth
from worker.aggregates.keys import DEFAULT_PREFIX
from worker.aggregates.store import RedisStore
from worker.narrative.index import monthly_index
from worker.narrative.months import parse_month
from worker.narrative.reader import read_sums


class Narrative:
    """Reads the monthly index; use it as an async context manager.

    ::

        async with Narrative("redis://127.0.0.1:6379/0") as narrative:
            for month in await narrative.index("2020-01", "2020-12"):
                print(month.month, month.share)

    Args:
        url: ``redis://[user:password@]host:port/db``; ``rediss://`` for TLS.
        prefix: what the writer puts before every key.
        cluster: whether ``url`` is a node of a Redis Cluster.
        weights: of sources in share, interval and mean; 1 where absent.
        client_options: further keyword arguments of a redis-py client, such as ``username``,
            ``password`` and ``ssl_ca_certs``.

    Entering raises ConnectionFailedError where Redis does not answer, and
    ConfigurationError where it refuses; every read may raise ConnectionFailedError.
    """

    def __init__(
        self,
        url: str,
        prefix: str = DEFAULT_PREFIX,
        cluster: bool = False,
        weights: Mapping[str, float] | None = None,
        *,
        client_options: Mapping[str, Any] | None = None,
    ) -> None:
        self._store = RedisStore(url, cluster=cluster, client_options=client_options)
        self._prefix = prefix
        self._weights = dict(weights or {})

    async def index(self, first: str | None = None, last: str | None = None) -> list[NarrativeMonth]:
        """Every month from ``first`` to ``last`` (as 2015-01), empty ones too; all counted ones by default.

        Empty where nothing has been counted and the months are not both given. ``standardised`` looks at the
        months before each only, those before ``first`` included.

        Raises:
            ConfigurationError: ``first`` or ``last`` is no month.
            NoArticlesError: ``last`` lies before ``first``.
        """
        first, last = (month and parse_month(month) for month in (first, last))
        sums = await read_sums(self._store, self._prefix)
        if not sums and (first is None or last is None):
            return []
        rows = monthly_index(sums, first, last, weights=self._weights, standardise=True)
        return [NarrativeMonth.model_validate(row) for row in rows]

    async def __aenter__(self) -> Self:
        try:
            await self._store.check(self._prefix)
        except BaseException:
            await self._store.aclose()
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._store.aclose()
