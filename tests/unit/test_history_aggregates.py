"""Rows of exported aggregates, out of buckets in memory."""

import csv
import io
import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from schemas.aggregates import Series
from schemas.windows import Window
from worker.aggregates.buckets import COLUMNS
from worker.aggregates.series import METRICS, plan_series
from worker.clients import Aggregates
from worker.errors import ConfigurationError
from worker.history.aggregates import aggregates_of
from worker.history.columns import aggregate_columns, is_count
from worker.history.writing import Format, writer


class InMemory(Aggregates):
    """BTC, with one message in every bucket; no Redis."""

    def __init__(self) -> None:
        super().__init__("redis://127.0.0.1:1")

    async def coins(self) -> list[str]:
        return ["BTC"]

    async def series(
        self,
        symbol: str,
        metrics: Sequence[str] = ("messages",),
        window: Window = "1h",
        *,
        since: datetime | None = None,
        until: datetime | None = None,
        step: int | None = None,
    ) -> Series:
        plan = plan_series(window, since=since, until=until, step=step)
        return plan.read(symbol, metrics, dict.fromkeys(plan.buckets, [1] * COLUMNS))


async def rows_of(*symbols: str) -> list[dict[str, Any]]:
    since = datetime.now(UTC) - timedelta(hours=3)
    records = aggregates_of(InMemory(), symbols, list(METRICS), "1h", since=since, until=None, step=3_600)
    return [dict(record) async for record in records]


@pytest.mark.parametrize("symbol", ["btc", "BCT", "market"])
async def test_a_coin_that_no_signal_has_named_is_refused(symbol: str) -> None:
    """It was a file of zeros, with status 0."""
    with pytest.raises(ConfigurationError, match=f"No signal has named {symbol}: kbert watch"):
        await rows_of("BTC", symbol)
    assert {row["symbol"] for row in await rows_of("BTC", "MARKET")} == {"BTC", "MARKET"}
    assert list(dict.fromkeys(row["symbol"] for row in await rows_of())) == ["MARKET", "BTC"]


@pytest.mark.parametrize("format_", ["csv", "jsonl"])
async def test_counts_are_integers(tmp_path: Path, format_: Format) -> None:
    path = tmp_path / "a"
    with writer(path, format_, aggregate_columns(list(METRICS))) as file:
        for row in await rows_of("BTC"):
            file.write(row)
    told: list[dict[str, Any]]
    if format_ == "csv":
        told = [
            {name: json.loads(cell) for name, cell in row.items() if name not in ("symbol", "window", "time")}
            for row in csv.DictReader(io.StringIO(path.read_text("utf-8-sig")))
        ]
    else:
        told = [json.loads(line) for line in path.read_text().splitlines()]
    assert told
    for row in told:
        assert {row[name] for name in row if is_count(name)} == {60}
        assert all(isinstance(row[name], int) for name in row if is_count(name))
        assert isinstance(row["sentiment_index"], float)
