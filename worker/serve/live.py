"""Live streams: server-sent events and WebSocket, the same events with the same filters."""

import asyncio
import contextlib
from typing import Annotated, Any, Final

import orjson
from fastapi import APIRouter, Depends, HTTPException, Query, Response, WebSocket, WebSocketDisconnect
from starlette.types import Receive, Scope, Send

from worker.serve.answers import ErrorAnswer
from worker.serve.filters import known_names, signal_filter
from worker.serve.hub import Ending, Event, EventKind, Hub, Subscription, TooManyStreamsError, pump
from worker.signal_filter import SignalFilter

_HEARTBEAT: Final = 15.0
_FAREWELL: Final = 10.0
"""Seconds in which a reader that was cut off may take what is on its way, and the reason."""

_BOTH: Final[tuple[EventKind, ...]] = ("signal", "aggregates")

Wanted = Annotated[SignalFilter, Depends(signal_filter)]
Kinds = Annotated[list[EventKind], Query(alias="event", description="Only these; both where absent.")]

_ANSWERS: Final[dict[int | str, dict[str, Any]]] = {
    200: {"content": {"text/event-stream": {"schema": {"type": "string"}}}, "description": "Events."},
    503: {"model": ErrorAnswer, "description": "As many streams are open as are allowed."},
}


class EventStream(Response):
    """The body of ``/v1/stream``; ends by itself when its subscription does."""

    media_type = "text/event-stream"

    def __init__(self, hub: Hub, subscription: Subscription) -> None:
        self._hub = hub
        self._subscription = subscription
        super().__init__(headers={"X-Accel-Buffering": "no", "Cache-Control": "no-store"})
        del self.headers["content-length"]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send events until the reader goes or is cut off."""

        async def body(data: bytes, more: bool = True) -> None:
            await send({"type": "http.response.body", "body": data, "more_body": more})

        async def write(events: list[Event]) -> None:
            await body(b"".join(event.as_sse for event in events))

        async def gone() -> None:
            while (await receive())["type"] != "http.disconnect":
                pass

        async def beat() -> None:
            while True:
                await asyncio.sleep(_HEARTBEAT)
                await body(b"event: beat\ndata: {}\n\n")

        beating = asyncio.create_task(beat())
        try:
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
            await body(b"retry: 2000\n\n")
            ending = await pump(self._subscription, kind="sse", write=write, gone=gone)
            beating.cancel()
            if ending is not None:
                error = orjson.dumps({"code": ending.code, "reason": ending.reason})
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_FAREWELL):
                        await body(b"event: error\ndata: " + error + b"\n\n", more=False)
        finally:
            beating.cancel()
            self._hub.leave(self._subscription)


def live_routes(hub: Hub) -> APIRouter:
    """``/v1/stream`` and ``/v1/ws``."""
    router = APIRouter(prefix="/v1", tags=["signals"], dependencies=[Depends(known_names)])

    @router.get("/stream", response_class=EventStream, status_code=200, responses=_ANSWERS)
    async def stream(wanted: Wanted, kinds: Kinds = []) -> Response:  # noqa: B006
        """Server-sent events: `signal`, `aggregates`, `beat` every 15 s, and `error` as the last one."""
        try:
            return EventStream(hub, hub.subscribe(wanted, kinds or _BOTH))
        except TooManyStreamsError as error:
            raise HTTPException(503, str(error), {"Retry-After": "5"}) from error

    @router.websocket("/ws")
    async def websocket(socket: WebSocket, wanted: Wanted, kinds: Kinds = []) -> None:  # noqa: B006
        await socket.accept()
        try:
            subscription = hub.subscribe(wanted, kinds or _BOTH)
        except TooManyStreamsError as error:
            await socket.close(Ending.SLOW.code, f"too_many_streams: {error}")
            return

        async def write(events: list[Event]) -> None:
            for event in events:
                await socket.send_text(event.as_text)

        async def gone() -> None:
            # What a reader says is of no interest, binary messages included.
            while (await socket.receive())["type"] != "websocket.disconnect":
                pass

        try:
            ending = await pump(subscription, kind="websocket", write=write, gone=gone)
        finally:
            hub.leave(subscription)
        if ending is not None:
            with contextlib.suppress(TimeoutError, WebSocketDisconnect):
                async with asyncio.timeout(_FAREWELL):
                    await socket.close(ending.code, ending.reason)

    return router
