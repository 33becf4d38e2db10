"""Routes for operators."""

from typing import Any, Final

from fastapi import APIRouter, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from worker.errors import KbertError
from worker.serve.answers import Health
from worker.serve.state import ServeState

_UNAVAILABLE: Final[dict[int | str, dict[str, Any]]] = {
    503: {"model": Health, "description": "Redis does not answer."}
}


def health_routes(state: ServeState) -> APIRouter:
    """``/healthz``, ``/readyz`` and ``/metrics``."""
    router = APIRouter(tags=["operation"])

    @router.get("/healthz")
    async def healthz() -> Health:
        """The process answers."""
        return Health(status="ok")

    @router.get("/readyz", responses=_UNAVAILABLE)
    async def readyz(response: Response) -> Health:
        """Redis answers too. A lost Kafka is not seen here: the client reconnects by itself."""
        try:
            await state.aggregates.check()
        except KbertError:
            response.status_code = 503  # without the error: it names the server, and anyone may ask
            return Health(status="unavailable", detail="Redis does not answer as it should; see the log.")
        return Health(status="ok")

    @router.get("/metrics", response_class=Response)
    async def show_metrics() -> Response:
        """Prometheus text format."""
        return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)

    return router
