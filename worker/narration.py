"""The wiring of the narrative index: traffic signals to months."""

from worker.aggregates.store import RedisStore
from worker.narrative.project import NarrativeProjector
from worker.projection import Projection
from worker.settings import Settings


class Narration(Projection):
    """Follows the traffic signals; an async context manager."""

    def __init__(self, settings: Settings) -> None:
        redis = settings.redis
        store = RedisStore(
            redis.url.get_secret_value(), cluster=redis.cluster, client_options=redis.client_options()
        )
        projector = NarrativeProjector(
            store,
            prefix=redis.prefix,
            id_window=settings.narrative.id_window,
            max_future=settings.source.max_future,
        )
        super().__init__(
            "narrative",
            topic=settings.traffic.signals,
            kafka=settings.kafka,
            group=settings.narrative,
            store=store,
            prefix=redis.prefix,
            projector=projector,
            stall_limit=settings.source.stall_limit,
            pipeline="traffic",
        )
