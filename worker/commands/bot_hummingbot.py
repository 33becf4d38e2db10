"""``kbert bot hummingbot``: aggregates to an MQTT broker."""

import asyncio

from worker.clients import Aggregates
from worker.clients.bots.hummingbot import HummingbotPublisher
from worker.clients.bots.markets import Markets
from worker.coins import load_catalogue
from worker.settings import Settings


async def run_hummingbot(settings: Settings, stop: asyncio.Event) -> None:
    """Publish until ``stop`` is set."""
    markets = Markets(load_catalogue(settings.coins.user_file), settings.bot.markets_file)
    redis = settings.redis
    place = redis.url.get_secret_value(), redis.prefix, redis.cluster
    async with Aggregates(*place, client_options=redis.client_options()) as aggregates:
        await HummingbotPublisher(aggregates, markets, settings.bot.hummingbot).run(stop)
