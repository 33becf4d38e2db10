"""Follow the signals of some coins, from ten minutes ago on.

python -m worker.clients.examples.follow_signals 127.0.0.1:9092 BTC ETH
"""

import argparse
import asyncio
from datetime import UTC, datetime, timedelta

from worker.clients import SignalStream


async def follow(bootstrap_servers: str, coins: list[str], topic: str) -> None:
    """Print a line a signal, without end."""
    since = datetime.now(UTC) - timedelta(minutes=10)
    async with SignalStream(
        bootstrap_servers, topic=topic, coins=coins or None, min_relevance=0.4, since=since
    ) as stream:
        async for signal in stream:
            print(
                f"{signal.published_at:%H:%M:%S} {','.join(signal.coins)} {signal.sentiment_strength} "
                f"{signal.action_signal} certainty={signal.certainty:.2f} {signal.text or ''}",
                flush=True,
            )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bootstrap_servers")
    parser.add_argument("coins", nargs="*")
    parser.add_argument("--topic", default="signals.crypto")
    given = parser.parse_args()
    asyncio.run(follow(given.bootstrap_servers, given.coins, given.topic))
