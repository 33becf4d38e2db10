"""Routes for operators."""

from typing import Any, Final

import structlog
from fastapi import APIRouter, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from worker.errors import KbertError
from worker.serve.answers import Health
from worker.serve.state import ServeState

log = structlog.get_logger(__name__)

_UNAVAILABLE: Final[dict[int | str, dict[str, Any]]] = {
    503: {"model": Health, "description": "Redis or Kafka does not answer."}
}


def health_routes(state: ServeState) -> APIRouter:
    """``/healthz``, ``/readyz`` and ``/metrics``."""
    router = APIRouter(tags=["operation"])

    @router.head("/healthz", include_in_schema=False)
    @router.get("/healthz")
    async def healthz() -> Health:
        """The process answers."""
        return Health(status="ok")

    @router.head("/readyz", include_in_schema=False)
    @router.get("/readyz", responses=_UNAVAILABLE)
    async def readyz(response: Response) -> Health:
        """Redis and Kafka answer too; they are asked once for all who ask at the same time."""
        try:
            await state.probes.get("ready", state.check)
        except KbertError as error:
            if state.problem != str(error):  # once, and not at every probe
                log.warning("serve.not_ready", error=str(error))
            state.problem = str(error)
            response.status_code = 503  # without the error: it names the server, and anyone may ask
            return Health(
                status="unavailable", detail="Redis or Kafka does not answer as it should; see the log."
            )
        state.problem = None
        return Health(status="ok")

    @router.get("/metrics", response_class=Response)
    async def show_metrics() -> Response:
        """Prometheus text format."""
        return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)

    return router
