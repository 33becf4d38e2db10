"""``kbert bot freqtrade``: the producer on a port of its own."""

import asyncio

import structlog

from worker.clients import Aggregates
from worker.clients.bots.freqtrade_producer import FreqtradeProducer
from worker.clients.bots.markets import Markets
from worker.coins import load_catalogue
from worker.serve.server import bound_socket, serve_app
from worker.settings import Settings

log = structlog.get_logger(__name__)


async def run_freqtrade(settings: Settings, stop: asyncio.Event) -> None:
    """Serve until ``stop`` is set."""
    markets = Markets(load_catalogue(settings.coins.user_file), settings.bot.markets_file)
    redis = settings.redis
    place = redis.url.get_secret_value(), redis.prefix, redis.cluster
    async with Aggregates(*place, client_options=redis.client_options()) as aggregates:
        producer = FreqtradeProducer(aggregates, markets, settings.bot.freqtrade)
        with bound_socket(settings.bot.freqtrade, "bot.freqtrade") as listening:
            log.info("freqtrade.ready", port=listening.getsockname()[1], pairs=settings.bot.freqtrade.pairs)
            async with asyncio.TaskGroup() as group:
                ticking = group.create_task(producer.tell_each_candle())
                await serve_app(producer.app, listening, stop, closing=producer.close)
                ticking.cancel()
