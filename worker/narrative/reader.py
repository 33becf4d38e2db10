"""Reading the sums of all months out of Redis."""

from worker.aggregates.store import RedisStore
from worker.narrative.keys import NarrativeKeys
from worker.narrative.sums import MonthlySums, Sums


async def read_sums(store: RedisStore, prefix: str) -> MonthlySums:
    """Every month that has articles, by source.

    Raises:
        ConnectionFailedError: Redis does not answer.
        ConfigurationError: Redis refuses us.
    """
    keys = NarrativeKeys(prefix)
    (members,) = await store.once([("SMEMBERS", keys.months)])
    months = sorted(member.decode() for member in members)
    if not months:
        return {}
    answers = await store.once([("HGETALL", keys.month(month)) for month in months])
    return {month: _sources(_pairs(answer)) for month, answer in zip(months, answers, strict=True)}


def _pairs(answer: object) -> dict[bytes, bytes]:
    """A raw HGETALL is a flat list on some paths of redis-py and a dict on others."""
    if isinstance(answer, dict):
        return answer
    assert isinstance(answer, list)  # noqa: S101 - RESP2 has no third form
    return dict(zip(answer[::2], answer[1::2], strict=True))


def _sources(fields: dict[bytes, bytes]) -> dict[str, Sums]:
    names = {field[2:].decode() for field in fields}

    def value(kind: bytes, source: str) -> int:
        return int(fields.get(kind + source.encode(), 0))

    return {
        source: Sums(value(b"a:", source), value(b"n:", source), value(b"p:", source)) for source in names
    }
