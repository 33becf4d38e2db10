"""The monthly narrative index over HTTP: what `kbert narrative index` prints, out of the same Redis."""

from typing import Any

import httpx
import pytest

from schemas.narrative import NarrativeMonth
from tests.fake_traffic import signal
from tests.serving import serve_settings, serving
from worker.aggregates.store import RedisStore
from worker.narrative.index import monthly_index
from worker.narrative.project import NarrativeProjector
from worker.narrative.reader import read_sums
from worker.settings import Settings

TIMES = ("2020-01-31T14:00:00Z", "2020-01-31T16:00:00Z", "2020-04-05T00:00:00Z")


@pytest.fixture
async def settings(kafka: Any, topics: Any, redis_url: str, redis_prefix: str) -> Settings:
    return await serve_settings(kafka, topics, redis_url, redis_prefix)


async def test_months_of_the_index(settings: Settings) -> None:
    url, prefix = settings.redis.url.get_secret_value(), settings.redis.prefix
    async with (
        RedisStore(url) as store,
        serving(settings, "serve") as address,
        httpx.AsyncClient(base_url=address, timeout=20) as http,
    ):
        assert (await http.get("/v1/narrative", params={"to": "1999-12"})).json() == {"months": []}
        signals = [(n, signal(n, TIMES[n % 3], label=n % 2, probability=0.5, source="a")) for n in range(90)]
        await NarrativeProjector(store, prefix=prefix).apply({("signals.traffic", 0): signals})
        months = (await http.get("/v1/narrative")).json()["months"]
        rows = monthly_index(await read_sums(store, prefix), standardise=True)
        assert months == [NarrativeMonth.model_validate(row).model_dump(mode="json") for row in rows]
        assert [month["month"] for month in months] == ["2020-01", "2020-02", "2020-03", "2020-04"]
        assert [month["articles"] for month in months] == [30, 30, 0, 30]
        assert months[2]["share"] is None
        cut = await http.get("/v1/narrative", params={"from": "2020-02", "to": "2020-03"})
        assert [month["month"] for month in cut.json()["months"]] == ["2020-02", "2020-03"]
        assert (await http.get("/v1/narrative", params={"from": "2020-13"})).status_code == 422
        reversed_ = await http.get("/v1/narrative", params={"from": "2020-05", "to": "2020-01"})
        assert reversed_.status_code == 409
        assert "2020-05" in reversed_.json()["detail"]
