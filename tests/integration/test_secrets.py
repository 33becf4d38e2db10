"""No secret and no message text is seen where it does not belong, whatever fails, however loud the log."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydantic import BaseModel, SecretStr
from redis import Redis

from tests.checkpoints import SMALL, random_state, write_checkpoint
from tests.fake_model import POISON
from tests.kafka_io import produce, read_topic
from tests.pipelines import pipeline_settings
from tests.processes import kbert
from tests.servers import KafkaServer, Topics
from tests.waiting import eventually
from worker.aggregates.store import RedisStore, address
from worker.embedded import EmbeddedRedis, free_port
from worker.errors import ConfigurationError
from worker.settings import (
    AggregateSettings,
    MetricsSettings,
    ModelSettings,
    RedisSettings,
    Settings,
    SinkSettings,
    load_settings,
)


def secret_fields(model: type[BaseModel] = Settings, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Path of every setting that is a secret."""
    for name, field in model.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            yield from secret_fields(kind, (*path, name))
        elif "SecretStr" in str(kind):
            yield (*path, name)


SECRETS = {path: "hush-" + "-".join(path).replace("_", "-") + "-4711" for path in secret_fields()}
VARIABLES = {"KBERT_" + "__".join(path).upper(): secret for path, secret in SECRETS.items()}
VARIABLES["KBERT_REDIS__URL"] = "redis://someone:hush-redis-url-4711@127.0.0.1:1/0"


def exposed(text: str) -> list[str]:
    return [line for line in text.splitlines() if "hush-" in line]


def run(*arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    env = {name: value for name, value in os.environ.items() if not name.startswith("KBERT_")}
    done = subprocess.run(
        [sys.executable, "-m", "worker", *arguments],
        env=env | VARIABLES | {"KBERT_LOG__LEVEL": "debug", "KBERT_MODEL__THREADS": "1"} | environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=170,
        check=False,
    )
    assert done.stdout + done.stderr
    return done


@pytest.fixture
def endpoint() -> Iterator[str]:
    """A token endpoint that refuses everyone, and tells what it was given."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.send_response(401)
            self.end_headers()
            self.wfile.write(str(self.headers).encode())

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/token"
    server.shutdown()
    server.server_close()


def test_every_secret_is_here() -> None:
    assert len(SECRETS) >= 8
    assert {("redis", "password"), ("kafka", "oauth_client_secret"), ("serve", "token")} <= set(SECRETS)


def test_settings_do_not_show_them(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in VARIABLES.items():
        monkeypatch.setenv(name, value)
    settings = load_settings(_env_file=None)
    for one in (settings, settings.kafka, settings.redis, settings.serve, settings.sink):
        assert not exposed(f"{one!r} {one} {one.model_dump()} {one.model_dump_json()}")
    assert settings.redis.client_options()["password"] == SECRETS["redis", "password"]  # they are there


@pytest.mark.parametrize(
    "url",
    [
        "redis://:hush-a/b@host:6379/0",
        "redis://me:hush-a#b@host",
        "redis://me:hush-a@host:port/0",
        "redis://me:[hush-a@host",
        "http://me:hush-a@host",
    ],
)
def test_an_address_that_is_none_is_not_repeated(url: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        address(url)
        RedisStore(url)
    assert not exposed(f"{refused.value!r} {refused.value} {refused.value.__cause__!r}")


@pytest.mark.parametrize(
    ("arguments", "how"),
    [
        (("config",), "PLAINTEXT"),
        (("run",), "SASL_SSL"),
        (("run", "--only", "aggregates"), "SASL_PLAINTEXT"),
        (("serve",), "SASL_SSL"),
        (("doctor",), "SASL_PLAINTEXT"),
        (("topics", "--create"), "SASL_PLAINTEXT"),
        (("dead-letter", "list"), "SASL_PLAINTEXT"),
        (("watch", "--once"), "PLAINTEXT"),
    ],
)
def test_commands_that_fail_do_not_tell(arguments: tuple[str, ...], how: str, kafka: KafkaServer) -> None:
    """A broker without SASL or TLS where both are asked for, no Redis, and a model that is none."""
    done = run(
        *arguments,
        KBERT_KAFKA__BOOTSTRAP_SERVERS="127.0.0.1:1" if how == "PLAINTEXT" else kafka.bootstrap_servers,
        KBERT_KAFKA__SECURITY_PROTOCOL=how,
        KBERT_KAFKA__SASL_USERNAME="someone",
        KBERT_MODEL__REF="/dev/null",
    )
    assert done.returncode == (0 if arguments == ("config",) else 1), done.stderr
    assert not exposed(done.stdout + done.stderr)
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("arguments", [("serve",), ("doctor",), ("topics",)], ids=" ".join)
def test_a_token_endpoint_that_refuses_is_not_quoted(
    arguments: tuple[str, ...], endpoint: str, kafka: KafkaServer, redis_url: str
) -> None:
    done = run(
        *arguments,
        KBERT_KAFKA__BOOTSTRAP_SERVERS=kafka.bootstrap_servers,
        KBERT_KAFKA__SECURITY_PROTOCOL="SASL_PLAINTEXT",
        KBERT_KAFKA__SASL_MECHANISM="OAUTHBEARER",
        KBERT_KAFKA__OAUTH_TOKEN_URL=endpoint,
        KBERT_KAFKA__OAUTH_CLIENT_ID="kbert",
        KBERT_REDIS__URL=redis_url,
        KBERT_REDIS__PASSWORD="",
    )
    assert done.returncode == 1
    assert not exposed(done.stdout + done.stderr)


@pytest.mark.parametrize(
    "variables",
    [
        {"KBERT_SERVE__TOKEN": "hush-short"},
        {"KBERT_REDIS__URL": "redis://:hush-a/b@host"},
        {"KBERT_KAFKA__SASL_PASSWORDS": "hush-misspelt"},
        {"KBERT_KAFKA__OAUTH_TOKEN_URL": "https://me:hush-url@host", "KBERT_KAFKA__OAUTH_CLIENT_ID": "x",
         "KBERT_KAFKA__SASL_MECHANISM": "OAUTHBEARER", "KBERT_KAFKA__SECURITY_PROTOCOL": "SASL_SSL"},
        {"KBERT_KAFKA__SSL_CERTFILE": "/dev/null"},
    ],
    ids=lambda variables: next(iter(variables)),
)  # fmt: skip
def test_settings_that_are_wrong_are_not_repeated(variables: dict[str, str]) -> None:
    done = run("run", "--only", "aggregates", **variables)
    assert done.returncode == 1
    assert not exposed(done.stdout + done.stderr)


async def test_a_run_that_works_tells_neither_secrets_nor_messages_nor_authors(
    kafka: KafkaServer, topics: Topics, tmp_path: Path
) -> None:
    """At debug: secrets nowhere, texts in debug lines at most, authors only as keyed hashes."""
    checkpoint = write_checkpoint(tmp_path / "small", random_state(SMALL))
    password = "hush-of-redis-4711"
    async with EmbeddedRedis(options=["--requirepass", password]) as redis:
        settings = await pipeline_settings(
            kafka,
            topics,
            redis=RedisSettings(url=SecretStr(redis.url), password=SecretStr(password)),
            metrics=MetricsSettings(port=free_port()),
            model=ModelSettings(ref=str(checkpoint), device="cpu", threads=1),
            sink=SinkSettings(author_key=SecretStr("hush-author-key-4711"), publish_text=False),
        )
        group = AggregateSettings(group_id=f"aggregates-{settings.topics.raw}", session_timeout=6.0)
        settings = settings.model_copy(update={"aggregates": group})
        canary = "비밀스러운 비트 이야기"
        values = [
            json.dumps({"text": f"{canary} {n}", "author": f"author-canary-{n}"}).encode() for n in range(50)
        ]
        values += [f'{{"text": "{canary}'.encode(), canary.encode() + b"\xff", f"{canary} {POISON}".encode()]
        await produce(kafka.bootstrap_servers, settings.topics.raw, values, partitions=2)
        log = tmp_path / "log"
        with kbert(["run"], settings, log, KBERT_LOG__LEVEL="debug") as process:
            scraped = ""

            async def counted() -> bool:
                nonlocal scraped
                assert process.running, log.read_text()[-2_000:]
                async with httpx.AsyncClient() as client:
                    try:
                        answers = [
                            await client.get(f"http://127.0.0.1:{settings.metrics.port}/{path}")
                            for path in ("metrics", "readyz")
                        ]
                    except httpx.TransportError:
                        return False
                scraped = "".join(answer.text for answer in answers)
                return 'kbert_projected_total{projection="aggregates"} 51.0' in scraped

            await eventually(counted, timeout=60, interval=0.2, what="the aggregates")
            process.send(signal.SIGTERM)
            assert await asyncio.to_thread(process.wait) == 0
        text = log.read_text()
        assert not exposed(text + scraped)
        assert canary not in scraped
        loud = [line for line in text.splitlines() if canary in line and '"level": "debug"' not in line]
        assert loud == []
        signals = await read_topic(kafka.bootstrap_servers, settings.topics.signals)
        assert not any(b"author-canary" in record.value for record in signals)
        hashes = {json.loads(record.value).get("author_hash") for record in signals} - {None}
        assert len(hashes) == 50
        assert "author-canary" not in text
        with Redis.from_url(redis.url, password=password) as client:
            stored = b"".join(key + (client.dump(key) or b"") for key in client.scan_iter())
        assert b"author-canary" not in stored
        assert canary.encode() not in stored


def test_author_hashes_depend_on_the_key() -> None:
    from schemas.messages import RawMessage
    from schemas.signals import ModelInfo
    from worker.sink.signals import CryptoSignalBuilder

    def hashed(key: str | None, author: str) -> str:
        settings = SinkSettings(author_key=SecretStr(key) if key else None)
        builder = CryptoSignalBuilder(ModelInfo(name="m", revision="0"), settings)
        given: str = builder._hash(RawMessage(text="x", author=author).author or "")
        return given

    assert hashed("one", "a") == hashed("one", "a")
    assert len({hashed("one", "a"), hashed("two", "a"), hashed("one", "b"), hashed(None, "a")}) == 4
