"""Aggregates of a time range out of the buckets: one record a coin and time."""

from collections.abc import AsyncIterator, Collection, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from schemas.windows import MARKET, Window
from worker.aggregates.series import SeriesError, plan_series
from worker.clients import Aggregates
from worker.errors import ConfigurationError
from worker.history.columns import is_count


def check_named(symbols: Iterable[str], coins: Collection[str]) -> None:
    """Raise ConfigurationError for a symbol, MARKET apart, that no signal has named."""
    for symbol in symbols:
        if symbol != MARKET and symbol not in coins:
            raise ConfigurationError(f"No signal has named {symbol}: kbert watch shows the coins.")


async def aggregates_of(
    aggregates: Aggregates,
    symbols: Sequence[str],
    metrics: Sequence[str],
    window: Window,
    *,
    since: datetime | None,
    until: datetime | None,
    step: int | None,
) -> AsyncIterator[Mapping[str, Any]]:
    """Rolling windows from ``since`` on and before ``until``, coin after coin, oldest first.

    Windows that had ended only: the one that still grows is left out.

    Args:
        symbols: MARKET and every coin that has signals where empty.

    Raises:
        ConfigurationError: no signal has named a symbol, or the buckets do not reach as fine or as far;
            says what they can.
        ConnectionFailedError: Redis does not answer.
    """
    coins = await aggregates.coins()
    check_named(symbols, coins)
    now = datetime.now(UTC)
    end = min(until, now) if until is not None else now
    try:
        plan = plan_series(window, since=since, until=end, step=step, now=now.timestamp())
        times = [at for at, _ in plan.points if at % plan.step == 0 and at < end.timestamp()]
        if not times:
            return
        wanted = set(times)
        first = datetime.fromtimestamp(times[0], UTC)
        for symbol in symbols or [MARKET, *coins]:
            series = await aggregates.series(symbol, metrics, window, since=first, until=end, step=plan.step)
            for place, time in enumerate(series.times):
                if time.timestamp() in wanted:
                    yield {
                        "symbol": symbol,
                        "window": window,
                        "time": time,
                        **{name: _value(name, values[place]) for name, values in series.values.items()},
                    }
    except SeriesError as error:
        raise ConfigurationError(f"The buckets cannot answer that: {error}.") from error


def _value(name: str, value: float | None) -> float | None:
    """Of a count the integer, which a series holds as a float."""
    return int(value) if value is not None and is_count(name) else value
