"""Print the most discussed coins of a window, and one coin's index over time.

python -m worker.clients.examples.read_aggregates redis://127.0.0.1:6379/0 BTC
"""

import argparse
import asyncio

from worker.clients import Aggregates


async def read(url: str, symbol: str, prefix: str) -> None:
    """Read once and end."""
    async with Aggregates(url, prefix=prefix) as aggregates:
        hour = await aggregates.all("1h")
        for coin, metrics in sorted(hour.items(), key=lambda item: -item[1].messages)[:10]:
            print(f"{coin:8} messages={metrics.messages} index={_shown(metrics.sentiment_index)}")
        series = await aggregates.series(symbol, ["sentiment_index", "messages"], "1h", step=3_600)
        columns = series.values
        for time, index, messages in zip(
            series.times, columns["sentiment_index"], columns["messages"], strict=True
        ):
            print(f"{time:%m-%d %H:%M} {symbol} messages={messages:.0f} index={_shown(index)}")


def _shown(index: float | None) -> str:
    return "-" if index is None else f"{index:+.2f}"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url")
    parser.add_argument("symbol", nargs="?", default="BTC")
    parser.add_argument("--prefix", default="kbert:")
    given = parser.parse_args()
    asyncio.run(read(given.url, given.symbol, given.prefix))
