"""The wiring of the aggregates: crypto signals to windows per coin."""

from worker.aggregates.project import Aggregator
from worker.aggregates.store import RedisStore
from worker.projection import Projection
from worker.settings import Settings


class Aggregation(Projection):
    """Follows the crypto signals; an async context manager."""

    def __init__(self, settings: Settings) -> None:
        redis = settings.redis
        store = RedisStore(
            redis.url.get_secret_value(), cluster=redis.cluster, client_options=redis.client_options()
        )
        aggregator = Aggregator(
            store,
            prefix=redis.prefix,
            relevant_from=settings.aggregates.relevant_from,
            id_window=settings.aggregates.id_window,
        )
        super().__init__(
            "aggregates",
            topic=settings.topics.signals,
            kafka=settings.kafka,
            group=settings.aggregates,
            store=store,
            prefix=redis.prefix,
            projector=aggregator,
            stall_limit=settings.source.stall_limit,
            pipeline="crypto",
        )
