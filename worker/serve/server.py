"""``kbert serve``: the API on uvicorn, fed by one SignalStream and one channel of changes."""

import asyncio
import contextlib
import logging
import socket
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Final

import structlog
import uvicorn
from starlette.types import ASGIApp

from schemas.aggregates import AggregateChange
from worker.binding import check_binding
from worker.clients import Aggregates, Narrative, SignalStream
from worker.coins import load_catalogue
from worker.errors import ConfigurationError, ConnectionFailedError, KbertError
from worker.serve.api import build_api
from worker.serve.hub import Hub
from worker.serve.recent import RecentSignals
from worker.serve.state import ServeState
from worker.settings import FreqtradeSettings, ServeSettings, Settings
from worker.source.reaching import why_unreachable
from worker.stopping import unless_stopped
from worker.telemetry.health import HEALTH
from worker.telemetry.metrics import READY
from worker.telemetry.seldom import Seldom

log = structlog.get_logger(__name__)

_MALFORMED: Final = ("Invalid HTTP request received.", "Unsupported upgrade request.")
_STOP_SECONDS: Final = 3
_READY_SECONDS: Final = 5.0
_CHANGES_SECONDS: Final = 0.25
"""Changes are told this often at most: a busy aggregator announces hundreds of batches a second."""


_seldom: Final = Seldom(log)


def _seldom_malformed(record: logging.LogRecord) -> bool:
    """Filter of uvicorn's log, which says a line for each malformed request that anyone sends."""
    if record.msg not in _MALFORMED:
        return True
    _seldom.warning("serve.malformed_request", problem=record.msg)
    return False


class _Server(uvicorn.Server):
    """uvicorn without its signal handlers: the process has its own."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


async def run_serve(settings: Settings, stop: asyncio.Event) -> None:
    """Serve until ``stop`` is set.

    Raises:
        ConfigurationError: bound beyond this machine without a token, or the port is taken.
        ConnectionFailedError: Kafka or Redis does not answer at the start.
    """
    check_binding("serve", settings.serve.host, settings.serve.token)
    with bound_socket(settings.serve) as listening:
        async with AsyncExitStack() as stack:
            # A broker or a Redis that is silent is waited for longer than a stop may last.
            state = await unless_stopped(stop, stack.enter_async_context(serving_state(settings)))
            if state is None:
                log.info("serve.stopped_at_start")
                return
            log.info("serve.ready", address=page_address(settings.serve, listening.getsockname()[1]))
            telling = asyncio.create_task(_tell_readiness(state))
            try:
                await serve_app(build_api(state, settings.serve), listening, stop, closing=state.hub.close)
            finally:
                telling.cancel()


async def _tell_readiness(state: ServeState) -> None:
    """Say to the process's probes and metrics what its own ``/readyz`` says, until it is cancelled."""
    with HEALTH.part("serve") as report:
        while True:
            try:
                await state.probes.get("ready", state.check)
                problem = None
            except KbertError:  # without the error: it names the server, and anyone may ask
                problem = "Redis or Kafka does not answer as it should"
            report(problem)
            READY.labels("serve").set(problem is None)
            await asyncio.sleep(_READY_SECONDS)


async def serve_app(
    app: ASGIApp, listening: socket.socket, stop: asyncio.Event, *, closing: Callable[[], None]
) -> None:
    """An application on uvicorn until ``stop`` is set; ``closing`` ends its open streams.

    Raises:
        KbertError: the server ended by itself.
    """
    logging.getLogger("uvicorn.error").addFilter(_seldom_malformed)
    server = _Server(
        uvicorn.Config(
            app,
            lifespan="off",
            log_config=None,
            log_level="warning",
            access_log=False,
            server_header=False,
            proxy_headers=False,
            ws="websockets-sansio",
            ws_max_size=4_096,  # readers have nothing to say
            timeout_graceful_shutdown=_STOP_SECONDS,
        )
    )
    serving = asyncio.create_task(server.serve(sockets=[listening]))
    stopping = asyncio.create_task(stop.wait())
    try:
        await asyncio.wait((serving, stopping), return_when=asyncio.FIRST_COMPLETED)
    finally:
        closing()
        server.should_exit = True
        stopping.cancel()
        await serving
    if not stop.is_set():
        raise KbertError("The HTTP server ended by itself; the log says why.")


@asynccontextmanager
async def serving_state(settings: Settings) -> AsyncIterator[ServeState]:
    """What the routes need, fed in the background; a feeder that fails cancels the caller."""
    started = datetime.now(UTC)
    catalogue = load_catalogue(settings.coins.user_file)
    options = settings.kafka.client_options()
    redis = settings.redis
    place = (redis.url.get_secret_value(), redis.prefix, redis.cluster)
    async with AsyncExitStack() as stack:
        secrets = redis.client_options()
        aggregates = await stack.enter_async_context(Aggregates(*place, client_options=secrets))
        narrative = await stack.enter_async_context(
            Narrative(*place, settings.narrative.source_weights, client_options=secrets)
        )
        stream = SignalStream(
            options.pop("bootstrap_servers"),
            topic=settings.topics.signals,
            since=started - timedelta(seconds=settings.serve.recent_seconds),
            **options,
        )
        try:
            await stack.enter_async_context(stream)
        except ConnectionFailedError as error:
            raise await why_unreachable(settings.kafka, error) from error
        state = ServeState(
            aggregates=aggregates,
            narrative=narrative,
            catalogue=catalogue,
            hub=Hub(queue=settings.serve.stream_queue, streams=settings.serve.max_streams),
            recent=RecentSignals(settings.serve.recent_signals),
            kafka=stream,
        )
        async with asyncio.TaskGroup() as feeders:
            tasks = [
                feeders.create_task(
                    _feed_signals(stream, state, started, max(1, settings.serve.stream_queue // 4))
                ),
                feeders.create_task(_feed_changes(aggregates.changes(), state)),
            ]
            try:
                yield state
            finally:
                for task in tasks:
                    task.cancel()


@contextlib.contextmanager
def bound_socket(
    settings: ServeSettings | FreqtradeSettings, section: str = "serve"
) -> Iterator[socket.socket]:
    """The listening socket; bound here so that a taken port is one sentence."""
    try:
        family = socket.getaddrinfo(settings.host, None, type=socket.SOCK_STREAM)[0][0]
        listening = socket.create_server((settings.host, settings.port), family=family, backlog=1_024)
    except OSError as error:
        raise ConfigurationError(
            f"Nothing can listen at {settings.host}:{settings.port} ({error.strerror}): "
            f"set {section}.port or {section}.host."
        ) from error
    # asyncio sets this itself only where the socket names its protocol, which create_server leaves out:
    # headers and body then waited 40 ms for each other's acknowledgement. Connections inherit it.
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    with listening:
        yield listening


def page_address(settings: ServeSettings, port: int) -> str:
    """Where a browser finds the page."""
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    return f"http://{host}:{port}/"


async def _feed_signals(stream: SignalStream, state: ServeState, started: datetime, turn: int) -> None:
    # A fetch gives thousands of signals without a pause: readers that were quick enough were cut off
    # because they never had a turn. So each `turn` signals they get one.
    count = 0
    async for signal in stream:
        state.signal(signal, live=signal.processed_at >= started)
        count += 1
        if count % turn == 0:
            await asyncio.sleep(0)


async def _feed_changes(changes: AsyncGenerator[AggregateChange, None], state: ServeState) -> None:
    waiting: set[str] = set()
    latest: datetime | None = None

    async def tell() -> None:
        nonlocal latest
        while True:
            await asyncio.sleep(_CHANGES_SECONDS)
            if latest is not None:
                state.change(AggregateChange(symbols=sorted(waiting), at=latest))
                waiting.clear()
                latest = None

    telling = asyncio.create_task(tell())
    try:
        async for change in changes:
            waiting.update(change.symbols)
            latest = change.at
    finally:
        telling.cancel()
        await changes.aclose()
