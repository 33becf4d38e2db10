"""The ASGI application: routes, guard and page."""

from pathlib import Path
from typing import Final

import structlog
from fastapi import FastAPI, Request, WebSocket
from fastapi.encoders import jsonable_encoder
from fastapi.exceptions import WebSocketRequestValidationError
from fastapi.responses import JSONResponse
from starlette.staticfiles import StaticFiles

from worker import __version__
from worker.errors import KbertError
from worker.serve.coins import coin_routes
from worker.serve.guard import Guard
from worker.serve.health import health_routes
from worker.serve.live import live_routes
from worker.serve.narrative import narrative_routes
from worker.serve.state import ServeState
from worker.settings import ServeSettings
from worker.telemetry.seldom import Seldom

log = structlog.get_logger(__name__)

PAGE: Final = Path(__file__).parent / "page"


def build_api(state: ServeState, settings: ServeSettings) -> FastAPI:
    """Everything that is served; ``/v1/openapi.json`` describes it."""
    api = FastAPI(
        title="kbert-stream",
        version=__version__,
        description="Sentiment, actions and volume of Korean crypto chatter per coin, live.",
        openapi_url="/v1/openapi.json",
        docs_url=None,  # their pages load scripts from a CDN
        redoc_url=None,
    )
    api.include_router(coin_routes(state))
    api.include_router(narrative_routes(state))
    api.include_router(live_routes(state.hub))
    api.include_router(health_routes(state))
    api.mount("/", StaticFiles(directory=PAGE, html=True), name="page")
    api.add_middleware(Guard, settings=settings)

    seldom = Seldom(log)

    @api.exception_handler(KbertError)
    async def unavailable(_: Request, error: KbertError) -> JSONResponse:
        seldom.warning("serve.unavailable", error=str(error))
        return JSONResponse(
            {"detail": "Redis does not answer: try again; the server's log says more."},
            status_code=503,
            headers={"Retry-After": "2"},
        )

    @api.exception_handler(WebSocketRequestValidationError)
    async def refused(socket: WebSocket, error: WebSocketRequestValidationError) -> None:
        # FastAPI would close it unopened: a bare 403, as for another origin.
        reason = {"detail": jsonable_encoder(error.errors())}
        await socket.send_denial_response(JSONResponse(reason, status_code=422))

    return api
