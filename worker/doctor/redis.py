"""Redis: connection, rights, version, memory and clock."""

import time
from collections.abc import AsyncIterator
from typing import Any

from redis.exceptions import NoPermissionError

from worker.aggregates.keys import Keys
from worker.aggregates.project import Aggregator
from worker.aggregates.store import RedisStore
from worker.doctor.finding import Finding, fail, ok, warn
from worker.errors import KbertError
from worker.settings import Settings

_SKEW_SECONDS = 2.0
_FULL = 0.8


async def check_redis(settings: Settings) -> AsyncIterator[Finding]:
    """Everything about Redis; stops after the connection where there is none."""
    redis = settings.redis
    try:
        store = RedisStore(
            redis.url.get_secret_value(), cluster=redis.cluster, client_options=redis.client_options()
        )
    except KbertError as error:
        yield fail("redis", str(error))
        return
    async with store:
        try:
            await store.check(redis.prefix)
        except KbertError as error:
            yield fail("redis", str(error))
            return
        yield ok("redis", f"{store.address} answers ({'TLS' if store.url.startswith('rediss') else 'plain'})")
        yield await _rights(settings, store)
        async for finding in _server(store):
            yield finding


async def _rights(settings: Settings, store: RedisStore) -> Finding:
    """Do what the aggregates do, on keys that are gone afterwards."""
    keys = Keys(settings.redis.prefix)
    try:
        await Aggregator(store, prefix=settings.redis.prefix).check()
        await store.once([("SMEMBERS", keys.coins), ("PUBLISH", f"{keys.changes}:check", "")])
        async with store.client.pubsub() as channel:
            await channel.subscribe(keys.changes)
    except KbertError as error:
        return fail("redis rights", str(error), "the least that is needed: worker/README.md, Redis ACL")
    except NoPermissionError as error:
        return fail(
            "redis rights",
            f"this user may not subscribe to {keys.changes} ({error})",
            "the least that is needed: worker/README.md, Redis ACL",
        )
    return ok("redis rights", f"scripts, keys and channel under {settings.redis.prefix}")


async def _server(store: RedisStore) -> AsyncIterator[Finding]:
    try:
        answer: Any = await store.client.info()
        told: Any = await store.client.time()
    except NoPermissionError:
        yield warn(
            "redis server",
            "this user may not ask for version, memory and clock",
            "allow it +info and +time to have them checked here",
        )
        return
    # A cluster answers by node; one of them speaks for all here.
    info = answer if "redis_version" in answer else next(iter(answer.values()))
    seconds, micros = told if isinstance(told, tuple) else next(iter(told.values()))
    version = str(info["redis_version"])
    if int(version.split(".", maxsplit=1)[0]) < 7:
        yield fail("redis version", f"{version} is older than 7", "use Redis 7 or Valkey 8, or newer")
    else:
        yield ok("redis version", f"{info.get('server_name', 'redis')} {version}")
    yield _memory(info)
    skew = abs(seconds + micros / 1e6 - time.time())
    if skew > _SKEW_SECONDS:
        yield warn("redis clock", f"differs by {skew:.1f} s from this machine's", "set both clocks by NTP")
    else:
        yield ok("redis clock", f"differs by {skew:.2f} s from this machine's")


def _memory(info: dict[str, Any]) -> Finding:
    used, limit, policy = info["used_memory"], info["maxmemory"], info["maxmemory_policy"]
    said = f"{used / 2**20:.0f} MiB used of {f'{limit / 2**20:.0f} MiB' if limit else 'no limit'}, {policy}"
    if limit and policy != "noeviction":
        return warn(
            "redis memory",
            f"{said}: a full server throws windows away",
            "set maxmemory-policy noeviction: the aggregates then wait for room instead",
        )
    if limit and used > _FULL * limit:
        return warn("redis memory", f"{said}: nearly full", "raise maxmemory")
    return ok("redis memory", said)
