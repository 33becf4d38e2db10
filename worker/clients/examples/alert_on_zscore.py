"""Say when a coin's sentiment index leaves its own past week's band, with its market at an exchange.

python -m worker.clients.examples.alert_on_zscore redis://127.0.0.1:6379/0 --venue upbit --limit 3
"""

import argparse
import asyncio

from worker.clients import Aggregates
from worker.clients.bots.markets import MarketError, Markets
from worker.coins import load_catalogue
from worker.settings import load_settings


async def alert(url: str, venue: str, limit: float, prefix: str) -> None:
    """Print a line when a coin leaves the band, and none again until it was back; without end."""
    settings = load_settings()
    markets = Markets(load_catalogue(settings.coins.user_file), settings.bot.markets_file)
    outside: set[str] = set()
    async with Aggregates(url, prefix=prefix) as aggregates:
        async for change in aggregates.changes():
            for symbol in change.symbols:
                metrics = (await aggregates.get(symbol)).windows["1h"]
                zscore = metrics.zscore_index
                if zscore is None or abs(zscore) < limit:
                    outside.discard(symbol)
                elif symbol not in outside:
                    outside.add(symbol)
                    mood = "greedy" if zscore > 0 else "fearful"
                    print(f"{_market(markets, symbol, venue)} {mood} z={zscore:+.1f}", flush=True)


def _market(markets: Markets, symbol: str, venue: str) -> str:
    try:
        return markets.code(symbol, venue)
    except MarketError:
        return symbol  # MARKET, or a coin whose code is unsure there


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url")
    parser.add_argument("--venue", default="upbit")
    parser.add_argument("--limit", type=float, default=3.0)
    parser.add_argument("--prefix", default="kbert:")
    given = parser.parse_args()
    asyncio.run(alert(given.url, given.venue, given.limit, given.prefix))
