"""The connection to Redis: few connections, one pipelined call a batch, and patience.

redis-py's pool raises when it is empty instead of waiting, and a cancelled call leaves
its reply unread on the connection, where the next call would take it for its own. So a
semaphore of ours stands before the pool, and every call that has its place runs to its end, shielded.
"""

import asyncio
import hashlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, Self
from urllib.parse import urlsplit

import structlog
from redis import exceptions as refusals
from redis.asyncio import Redis
from redis.asyncio.cluster import RedisCluster
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from worker.errors import ConfigurationError, ConnectionFailedError
from worker.tls import refused_handshake

log = structlog.get_logger(__name__)

Command = tuple[str | bytes | int | float, ...]
"""A Redis command and its arguments."""

_CHUNK: Final = 256
_FIRST_PAUSE: Final = 0.05
_LONGEST_PAUSE: Final = 2.0
_DEADLINE_OF_CLOSE: Final = 5.0

# What a failover, a restart, a full memory or a split network answers: it passes.
_PASSING: Final = (
    refusals.ConnectionError,
    refusals.TimeoutError,
    refusals.ReadOnlyError,
    refusals.ClusterDownError,
    refusals.TryAgainError,
    refusals.SlotNotCoveredError,
    refusals.OutOfMemoryError,
    OSError,
)
_PASSING_CODES: Final = ("MISCONF", "NOREPLICAS", "BUSY")
"""The disk is full, too few replicas, another's script runs: errors without a class of their own."""

# Of what passes, this comes from a server that is there.
_ANSWERS: Final = (refusals.ResponseError, refusals.BusyLoadingError, refusals.SlotNotCoveredError)

# Some are subclasses of ConnectionError, but no waiting mends them.
_LASTING: Final = (refusals.AuthenticationError, refusals.AuthorizationError, refusals.NoPermissionError)


class RefusedForNowError(ConnectionFailedError):
    """Redis answers, but is full, a replica, loading its data or the like, which passes."""


@dataclass(frozen=True, slots=True)
class Waiting:
    """Commands that Redis has not taken, and that are tried again."""

    since: float
    """By `time.monotonic`."""
    reason: str


class Script:
    """A Lua script, called by its digest; the store loads it where the server does not know it."""

    def __init__(self, source: str) -> None:
        self.source = source
        self.digest = hashlib.sha1(source.encode(), usedforsecurity=False).hexdigest()
        _scripts[self.digest] = self

    def call(self, keys: Sequence[str], arguments: Sequence[str | bytes | int]) -> Command:
        """The command that runs it."""
        return ("EVALSHA", self.digest, len(keys), *keys, *arguments)


_scripts: dict[str, Script] = {}


class RedisStore:
    """Runs commands on one Redis or a Redis Cluster; use it as an async context manager."""

    def __init__(
        self,
        url: str,
        *,
        cluster: bool = False,
        connections: int = 2,
        answer_timeout: float = 5.0,
        client_options: Mapping[str, Any] | None = None,
    ) -> None:
        """Prepare; nothing connects before the first call.

        Args:
            url: ``redis://[user:password@]host:port/db``; ``rediss://`` for TLS.
            cluster: whether ``url`` is a node of a Redis Cluster.
            connections: calls in flight at the same time (per node of a cluster).
            answer_timeout: seconds after which a silent server counts as gone; `once` waits no longer for
                a free connection and its answer together.
            client_options: user, password and TLS files, as `RedisSettings.client_options` gives them.

        Raises:
            ConfigurationError: ``url`` is no Redis address, or none of a cluster.
        """
        self.url = url
        self.cluster = cluster
        self.address = address(url)
        options: dict[str, Any] = {
            "protocol": 2,  # RESP3 adds pushed messages, which this has no use for
            "socket_timeout": answer_timeout,
            "socket_connect_timeout": answer_timeout,
            "health_check_interval": 15,  # else a subscription never notices that the network split
            **(client_options or {}),
        }
        self.client: Redis | RedisCluster
        try:
            if cluster:
                self.client = RedisCluster.from_url(url, **options)
            else:
                self.client = Redis.from_url(url, retry=Retry(NoBackoff(), 0), **options)
                # Else an option that it lacks, as ?foo=bar, is a TypeError at the first call.
                self.client.connection_pool.make_connection()  # type: ignore[no-untyped-call]
        except refusals.RedisClusterException as error:
            raise ConfigurationError(
                f"redis.url (KBERT_REDIS__URL) is no address of a cluster, which redis.cluster "
                f"(KBERT_REDIS__CLUSTER) says it is: {error}."
            ) from None
        except (ValueError, TypeError, refusals.RedisError):
            raise _no_address() from None
        self._answer_timeout = answer_timeout
        self._free = asyncio.Semaphore(connections)
        self._in_flight: set[asyncio.Task[list[Any]]] = set()
        self.waiting: Waiting | None = None
        """What `run` waits for; one `run` at a time, as projectors call it."""

    async def check(self, prefix: str = "kbert:") -> None:
        """Ask whether Redis is there and lets us read keys under ``prefix``.

        Raises:
            ConnectionFailedError: it is not.
            ConfigurationError: it is, but not as the settings say.
        """
        await self.once([("GET", f"{prefix}check")])

    async def once(self, commands: Sequence[Command]) -> list[Any]:
        """Run commands in one pipeline, or fail at once: for readers.

        Raises:
            RefusedForNowError: Redis answers, but does not take them yet.
            ConnectionFailedError: Redis does not answer.
            ConfigurationError: Redis refuses us.
        """
        try:
            # A silent server gives its places back one by one: the last of 20 requests waited 53 s.
            async with asyncio.timeout(self._answer_timeout):
                answers, failures = await self._attempt(commands)
        except TimeoutError:
            raise self._silent(f"no answer within {self._answer_timeout:g} s") from None
        for error in failures.values():
            self.raise_if_lasting(error)
            if isinstance(error, _ANSWERS):
                raise RefusedForNowError(
                    f"Redis at {self.address} answers, but refuses for now: see to its memory, disk and role "
                    f"({_text(error)})."
                ) from error
            raise self._silent(_text(error)) from error
        return answers

    async def run(self, commands: Sequence[Command]) -> list[Any]:
        """Run commands, again and again until Redis has answered each: for writers.

        A command may run twice where an answer is lost, so each has to bear that.

        Raises:
            ConfigurationError: Redis refuses us, which no waiting mends.
        """
        answers: list[Any] = []
        try:
            for start in range(0, len(commands), _CHUNK):
                answers += await self._run_chunk(commands[start : start + _CHUNK])
        finally:
            self.waiting = None
        return answers

    async def _run_chunk(self, commands: Sequence[Command]) -> list[Any]:
        answers: list[Any] = [None] * len(commands)
        missing = list(range(len(commands)))
        pause, gone_since = _FIRST_PAUSE, None
        while True:
            found, failures = await self._attempt([commands[n] for n in missing])
            for index, answer in zip(missing, found, strict=True):
                answers[index] = answer
            missing = [missing[n] for n in failures]
            if not missing:
                if gone_since is not None:
                    self.waiting = None
                    log.info("aggregates.redis_back", gone_for=round(time.monotonic() - gone_since, 3))
                return answers
            for error in failures.values():
                self.raise_if_lasting(error)
                if gone_since is None:
                    gone_since = time.monotonic()
                    log.warning("aggregates.redis_gone", address=self.address, error=_text(error))
                self.waiting = Waiting(gone_since, _text(error))
            await asyncio.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)

    def _silent(self, why: str) -> ConnectionFailedError:
        return ConnectionFailedError(
            f"Redis at {self.address} does not answer: start it, or correct redis.url "
            f"(KBERT_REDIS__URL) ({why})."
        )

    def raise_if_lasting(self, error: Exception) -> None:
        """Raise ConfigurationError for what no waiting mends: Redis refuses us, or cannot be trusted."""
        if (refused := refused_handshake(error, "redis", self.address)) is not None:
            raise ConfigurationError(f"Redis at {self.address} cannot be trusted: {refused}") from error
        if isinstance(error, refusals.MovedError) and not self.cluster:
            raise ConfigurationError(
                f"Redis at {self.address} is a cluster: set redis.cluster (KBERT_REDIS__CLUSTER) to true."
            ) from error
        if (refusal := _refusal(error)) is not None:
            raise ConfigurationError(
                f"Redis at {self.address} refuses us: correct user and password (redis.username and "
                f"redis.password, or those in redis.url), or its ACL ({_text(refusal)})."
            ) from error
        # After the refusals: redis-py words a CLUSTER SLOTS that an ACL refuses in the same way.
        if isinstance(error, refusals.RedisClusterException) and "mode is not enabled" in str(error):
            raise ConfigurationError(
                f"Redis at {self.address} is no cluster: set redis.cluster (KBERT_REDIS__CLUSTER) to false."
            ) from error

    async def _attempt(self, commands: Sequence[Command]) -> tuple[list[Any], dict[int, Exception]]:
        """One pipelined call: the answers, and what failed, by place, and may succeed later.

        Raises:
            redis.exceptions.ResponseError: a command is wrong, which is a bug.
        """
        await self._free.acquire()  # not in the task: who gives up waiting leaves nothing to run
        task = asyncio.ensure_future(self._pipeline(commands))
        self._in_flight.add(task)
        task.add_done_callback(self._done)
        try:
            answers = await asyncio.shield(task)
        except (*_PASSING, refusals.ResponseError, refusals.RedisClusterException) as error:
            # The connection's own commands may be refused as well, such as its PING before a call.
            if isinstance(error, refusals.ResponseError) and not _is_expected(error):
                raise
            return [None] * len(commands), dict.fromkeys(range(len(commands)), error)
        failures = {n: answer for n, answer in enumerate(answers) if isinstance(answer, Exception)}
        for failure in failures.values():
            if not _is_expected(failure):
                raise failure
        return answers, failures

    async def _pipeline(self, commands: Sequence[Command]) -> list[Any]:
        answers = await self._send(commands)
        unknown = [n for n, answer in enumerate(answers) if isinstance(answer, refusals.NoScriptError)]
        if unknown:  # the server was restarted, or never saw the script
            for digest in {str(commands[n][1]) for n in unknown}:
                await self.client.script_load(_scripts[digest].source)
            again = await self._send([commands[n] for n in unknown])
            for n, answer in zip(unknown, again, strict=True):
                answers[n] = answer
        if isinstance(self.client, Redis) and any(isinstance(a, refusals.ReadOnlyError) for a in answers):
            # Its address may name the new primary by now, but a connection stays with the old one.
            await self.client.connection_pool.disconnect(inuse_connections=False)
        return answers

    async def _send(self, commands: Sequence[Command]) -> list[Any]:
        pipeline = self.client.pipeline(transaction=False)
        for command in commands:
            pipeline.execute_command(*command)
        return await pipeline.execute(raise_on_error=False)

    def _done(self, task: "asyncio.Task[list[Any]]") -> None:
        self._free.release()
        self._in_flight.discard(task)
        if not task.cancelled():
            task.exception()  # its caller may be cancelled and gone; read, so that asyncio does not complain

    async def aclose(self) -> None:
        """Let calls in flight end (at most 5 s) and disconnect."""
        if self._in_flight:
            _, late = await asyncio.wait(self._in_flight, timeout=_DEADLINE_OF_CLOSE)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)
        await self.client.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()


def address(url: str) -> str:
    """Host and port (or socket path) of a Redis URL, without user and password.

    Raises:
        ConfigurationError: its scheme is not one of Redis, it has no host, or its port is no number.
    """
    try:
        parts = urlsplit(url)
        port = parts.port or 6379
    except ValueError:
        raise _no_address() from None
    # To redis-py, redis:6379 is a scheme without a host, which it takes for localhost.
    whole = parts.path if parts.scheme == "unix" else parts.scheme in ("redis", "rediss") and parts.hostname
    if not whole:
        raise _no_address()
    return f"{parts.hostname}:{port}" if parts.hostname else parts.path


def _no_address() -> ConfigurationError:
    """Without the parser's words: with a slash in it, it takes a piece of the password for the port."""
    return ConfigurationError(
        "redis.url (KBERT_REDIS__URL) is no Redis address: write redis://host:port/db or rediss://…, and "
        "special characters of user and password as %2F and the like, or set redis.password instead."
    )


def _is_expected(error: Exception) -> bool:
    """Whether it passes, or `raise_if_lasting` has a sentence for it."""
    passes = isinstance(error, _PASSING) or str(error).startswith(_PASSING_CODES)
    return passes or isinstance(error, refusals.MovedError) or _refusal(error) is not None


def _refusal(error: BaseException | None) -> BaseException | None:
    """What says that user, password or ACL are wrong: the error, or what it stands for."""
    if error is None or isinstance(error, _LASTING) or str(error).startswith("ACL failure in script"):
        return error
    # The cluster client wraps what its nodes answer, a refused CLUSTER SLOTS twice and once without `from`.
    wraps = isinstance(error, refusals.RedisClusterException)
    return _refusal(error.__cause__ or (error.__context__ if wraps else None))


def _text(error: BaseException) -> str:
    return str(error) or type(error).__name__
