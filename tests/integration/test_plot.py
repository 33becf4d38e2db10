"""`kbert plot`, out of a Redis that holds a week."""

from datetime import UTC, datetime
from pathlib import Path

import pytest
from pydantic import SecretStr
from typer.testing import CliRunner

from tests.fake_traffic import signal
from tests.processes import environment_of
from tests.recount import RELEVANT_FROM
from tests.serving import week_of_signals
from worker.aggregates.project import Aggregator
from worker.aggregates.store import RedisStore
from worker.cli import app
from worker.errors import ConfigurationError
from worker.narrative.project import NarrativeProjector
from worker.settings import RedisSettings, load_settings


@pytest.fixture
async def environment(redis_url: str, redis_prefix: str) -> dict[str, str]:
    async with RedisStore(redis_url) as store:
        week = list(enumerate(week_of_signals(datetime.now(UTC), 300)))
        aggregator = Aggregator(store, prefix=redis_prefix, relevant_from=RELEVANT_FROM)
        await aggregator.apply({("signals", 0): week})
        times = ("2020-01-31T14:00:00Z", "2020-02-03T16:00:00Z")
        news = [(n, signal(n, times[n % 2], label=n % 2, probability=0.5, source="a")) for n in range(20)]
        await NarrativeProjector(store, prefix=redis_prefix).apply({("signals.traffic", 0): news})
    return environment_of(
        load_settings(_env_file=None, redis=RedisSettings(url=SecretStr(redis_url), prefix=redis_prefix))
    )


def test_pictures_of_a_coin_and_of_the_index(environment: dict[str, str], tmp_path: Path) -> None:
    coin, index = tmp_path / "btc.png", tmp_path / "index.svg"
    metrics = ["--metric", "sentiment_index", "--metric", "messages", "--metric", "sentiment"]
    span = ["--window", "4h", "--from", "5d", "--to", "1h"]
    for arguments in (["coin", "BTC", *metrics, *span, "-o", coin], ["narrative", "-o", index]):
        done = CliRunner().invoke(
            app, ["plot", *map(str, arguments)], env=environment, catch_exceptions=False
        )
        assert done.exit_code == 0
    assert coin.read_bytes().startswith(b"\x89PNG")
    assert index.read_text().startswith("<?xml")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["coin", "NONE", "-o", "x.png"], "No signal has named NONE"),
        (["coin", "BTC", "-o", "x.gif"], "ends in none of"),
        (["coin", "BTC", "-o", "x.png", "--window", "5m", "--from", "3d"], "minutes are kept for 25 h"),
    ],
)
def test_a_mistake_is_one_sentence(environment: dict[str, str], arguments: list[str], sentence: str) -> None:
    with pytest.raises(ConfigurationError, match=sentence):
        CliRunner().invoke(app, ["plot", *arguments], env=environment, catch_exceptions=False)
