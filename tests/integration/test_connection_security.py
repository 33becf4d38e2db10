"""TLS and access lists against real servers: what is right works, what is wrong is one sentence."""

import asyncio
import re
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiokafka import AIOKafkaProducer
from pydantic import SecretStr
from redis import Redis

from tests.checkpoints import SMALL, random_state, write_checkpoint
from tests.processes import kbert
from tests.tls import Certificates, KafkaBehindTls, TlsProxy
from tests.waiting import eventually
from worker.clients import Aggregates
from worker.commands.doctor import examine
from worker.doctor.redis import check_redis
from worker.embedded import EmbeddedRedis, free_port
from worker.errors import ConfigurationError, ConnectionFailedError, KbertError
from worker.settings import (
    AggregateSettings,
    KafkaSettings,
    ModelSettings,
    RedisSettings,
    Settings,
    SourceSettings,
    load_settings,
)
from worker.sink.admin import wait_until_ready
from worker.sink.topics import create_topics, describe_topics

README = Path(__file__).parents[2] / "worker" / "README.md"


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates.make(tmp_path_factory.mktemp("tls"))


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("model") / "small", random_state(SMALL))


def tls_settings(kafka_port: int, redis_port: int, certificates: Certificates, **fields: Any) -> Settings:
    return load_settings(
        _env_file=None,
        kafka=KafkaSettings(
            bootstrap_servers=f"localhost:{kafka_port}",
            security_protocol="SSL",
            ssl_cafile=certificates.cafile,
            idempotent_producer=False,
            **fields,
        ),
        redis=RedisSettings(
            url=SecretStr(f"rediss://localhost:{redis_port}/0"), ssl_cafile=certificates.cafile
        ),
    )


@asynccontextmanager
async def kafka_behind_tls(
    certificates: Certificates, name: str = "localhost", *, ask_client: bool = False
) -> AsyncIterator[int]:
    port = free_port()
    context = certificates.of_server(name, ask_client=ask_client)
    async with KafkaBehindTls(port) as kafka, TlsProxy(kafka.port, context, port):
        yield port


@asynccontextmanager
async def redis_behind_tls(
    certificates: Certificates, name: str = "localhost", *options: str
) -> AsyncIterator[int]:
    async with (
        EmbeddedRedis(options=options) as redis,
        TlsProxy(redis.port, certificates.of_server(name)) as proxy,
    ):
        yield proxy.port


def with_kafka(settings: Settings, **fields: Any) -> Settings:
    return settings.model_copy(update={"kafka": settings.kafka.model_copy(update=fields)})


def redis_settings(port: int, certificates: Certificates, **fields: Any) -> RedisSettings:
    url = SecretStr(f"rediss://localhost:{port}/0")
    return RedisSettings(**({"url": url, "ssl_cafile": certificates.cafile} | fields))


async def reads(settings: RedisSettings) -> None:
    place = (settings.url.get_secret_value(), settings.prefix, settings.cluster)
    async with Aggregates(*place, client_options=settings.client_options()) as aggregates:
        await aggregates.get("BTC")


async def test_a_worker_and_its_aggregates_over_tls(
    certificates: Certificates, checkpoint: Path, tmp_path: Path
) -> None:
    async with kafka_behind_tls(certificates) as kafka, redis_behind_tls(certificates) as redis:
        settings = tls_settings(kafka, redis, certificates).model_copy(
            update={
                "model": ModelSettings(ref=str(checkpoint), device="cpu", threads=1),
                "source": SourceSettings(group_id="workers", session_timeout=6.0),
                "aggregates": AggregateSettings(group_id="aggregates", session_timeout=6.0),
            }
        )
        options = settings.kafka.client_options()
        await wait_until_ready(options.pop("bootstrap_servers"), 30.0, **options)
        await create_topics(settings)
        async with AIOKafkaProducer(**settings.kafka.client_options()) as producer:
            for number in range(20):
                await producer.send_and_wait(settings.topics.raw, f"비트 {number}".encode())
        with kbert(["run"], settings, tmp_path / "log") as process:
            secrets = settings.redis.client_options()
            async with Aggregates(
                settings.redis.url.get_secret_value(), client_options=secrets
            ) as aggregates:

                async def counted() -> bool:
                    assert process.running, process.log.read_text()[-2_000:]
                    return (await aggregates.get("BTC")).windows["1h"].messages == 20

                await eventually(counted, timeout=60, what="the aggregates")
            process.send(signal.SIGTERM)
            assert await asyncio.to_thread(process.wait) == 0
        found = {finding.check: finding async for finding in examine(settings)}
        assert (found["kafka"].outcome, found["redis"].outcome) == ("ok", "ok")
        assert "SSL" in found["kafka"].said
        assert "TLS" in found["redis"].said


async def test_a_broker_that_is_not_the_right_one_is_refused(
    certificates: Certificates, tmp_path: Path
) -> None:
    strangers = Certificates.make(tmp_path / "strangers")
    async with kafka_behind_tls(certificates) as port:
        settings = tls_settings(port, 1, certificates)
        cases = [
            (
                with_kafka(settings, ssl_cafile=strangers.cafile),
                "not signed by an authority.*kafka.ssl_cafile",
            ),
            (with_kafka(settings, ssl_cafile=None), "not signed by an authority.*kafka.ssl_cafile"),
            (with_kafka(settings, security_protocol="PLAINTEXT"), "a listener of another protocol"),
        ]
        for wrong, sentence in cases:
            with pytest.raises(ConnectionFailedError, match=sentence) as refused:
                await describe_topics(wrong)
            assert "\n" not in str(refused.value)
    async with kafka_behind_tls(certificates, "other.example") as port:
        settings = tls_settings(port, 1, certificates)
        with pytest.raises(
            ConnectionFailedError, match=r"certificate of localhost:\d+ is for another host name"
        ):
            await describe_topics(settings)
        await describe_topics(with_kafka(settings, ssl_check_hostname=False))


async def test_a_broker_that_asks_for_a_certificate(certificates: Certificates) -> None:
    async with kafka_behind_tls(certificates, ask_client=True) as port:
        settings = tls_settings(port, 1, certificates)
        with pytest.raises(ConnectionFailedError) as refused:
            await describe_topics(settings)
        assert "\n" not in str(refused.value)
        mine = {"ssl_certfile": certificates.certfile, "ssl_keyfile": certificates.keyfile}
        await describe_topics(with_kafka(settings, **mine))


@pytest.mark.parametrize("section", ["kafka", "redis"])
def test_files_that_are_no_certificates_are_one_sentence(
    section: str, certificates: Certificates, tmp_path: Path
) -> None:
    (tmp_path / "no.pem").write_text("no certificate")
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"ssl_cafile": tmp_path / "no.pem"}, f"{section}.ssl_cafile"),
        (
            {"ssl_certfile": certificates.certfile, "ssl_keyfile": tmp_path / "no.pem"},
            f"{section}.ssl_certfile",
        ),
    ]
    for fields, name in wrong:
        settings: KafkaSettings | RedisSettings = (
            KafkaSettings(security_protocol="SSL", **fields)
            if section == "kafka"
            else RedisSettings(url=SecretStr("rediss://localhost"), **fields)
        )
        with pytest.raises(ConfigurationError, match=name) as refused:
            settings.client_options()
        assert "\n" not in str(refused.value)


async def test_a_redis_that_is_not_the_right_one_is_refused(
    certificates: Certificates, tmp_path: Path
) -> None:
    strangers = Certificates.make(tmp_path / "strangers")
    async with redis_behind_tls(certificates) as port:
        await reads(redis_settings(port, certificates))
        with pytest.raises(
            ConfigurationError, match=r"not signed by an authority.*redis\.ssl_cafile"
        ) as refused:
            await reads(redis_settings(port, strangers))
        assert "\n" not in str(refused.value)
    async with redis_behind_tls(certificates, "other.example") as port:
        with pytest.raises(ConfigurationError, match="is for another host name"):
            await reads(redis_settings(port, certificates))
        await reads(redis_settings(port, certificates, ssl_check_hostname=False))


PASSWORD = "a-password-of-the-tests"


def documented_rights() -> list[str]:
    """The access list in worker/README.md, as arguments."""
    found = re.search(
        r"ACL SETUSER kbert (on .*?)\n```", README.read_text("utf-8").replace("\\\n", " "), re.DOTALL
    )
    assert found is not None
    return found[1].replace(">secret", f">{PASSWORD}").split()


def documented_rights_on_a_cluster() -> list[str]:
    """The same, with what it says that a cluster needs as well."""
    found = re.search(
        r"^A cluster \(`redis\.cluster`\) needs `(.*?)`", README.read_text("utf-8"), re.MULTILINE
    )
    assert found is not None
    return [*documented_rights(), *found[1].split()]


@asynccontextmanager
async def restricted_redis(rights: list[str], *, cluster: bool = False) -> AsyncIterator[RedisSettings]:
    async with EmbeddedRedis(cluster=cluster) as redis:
        with Redis.from_url(redis.url) as admin:
            if cluster:
                admin.execute_command("CLUSTER", "ADDSLOTSRANGE", 0, 16_383)
                await eventually(lambda: b"cluster_state:ok" in admin.execute_command("CLUSTER", "INFO"))
            admin.execute_command("ACL", "SETUSER", "kbert", *rights)
            admin.execute_command("ACL", "SETUSER", "default", "off")
        yield RedisSettings(
            url=SecretStr(redis.url), username="kbert", password=SecretStr(PASSWORD), cluster=cluster
        )


async def test_the_documented_rights_are_enough(
    kafka: Any, topics: Any, checkpoint: Path, tmp_path: Path
) -> None:
    from tests.pipelines import pipeline_settings

    async with restricted_redis(documented_rights()) as redis:
        settings = (await pipeline_settings(kafka, topics, redis=redis)).model_copy(
            update={"model": ModelSettings(ref=str(checkpoint), device="cpu", threads=1)}
        )
        settings = settings.model_copy(
            update={"aggregates": AggregateSettings(group_id=f"a-{settings.topics.raw}", session_timeout=6.0)}
        )
        async with AIOKafkaProducer(bootstrap_servers=kafka.bootstrap_servers) as producer:
            for number in range(10):
                message = f'{{"text": "비트 {number}", "author": "a{number}"}}'.encode()
                await producer.send_and_wait(settings.topics.raw, message)
        with kbert(["run"], settings, tmp_path / "log") as process:
            url = redis.url.get_secret_value()
            async with Aggregates(url, client_options=redis.client_options()) as aggregates:
                changes = aggregates.changes()

                async def counted() -> bool:
                    assert process.running, process.log.read_text()[-2_000:]
                    window = (await aggregates.get("BTC")).windows["1h"]
                    return window.messages == 10 and bool(window.unique_authors)

                await eventually(counted, timeout=60, what="the aggregates")
                await aggregates.board("1h")
                await aggregates.series("BTC")
                await changes.aclose()
        found = {finding.check: finding async for finding in examine(settings)}
        assert found["redis rights"].outcome == "ok"
        assert found["redis server"].outcome == "warn"  # INFO and TIME are not among them


async def test_the_documented_rights_are_enough_on_a_cluster() -> None:
    async with restricted_redis(documented_rights_on_a_cluster(), cluster=True) as redis:
        settings = load_settings(_env_file=None, redis=redis)
        found = {finding.check: finding async for finding in check_redis(settings)}
        assert (found["redis"].outcome, found["redis rights"].outcome) == ("ok", "ok")
        await reads(redis)


@pytest.mark.parametrize(
    ("missing", "cluster"),
    [
        *((right, False) for right in ("+evalsha", "+setrange", "+publish", "~kbert:*", "&kbert:*")),
        *((right, True) for right in ("+cluster|slots", "+command", "+evalsha")),
    ],
)
async def test_a_right_that_is_missing_is_one_sentence(missing: str, cluster: bool) -> None:
    rights = documented_rights_on_a_cluster() if cluster else documented_rights()
    rights.remove(missing)
    async with restricted_redis(rights, cluster=cluster) as redis:
        settings = load_settings(_env_file=None, redis=redis)
        failures = [finding async for finding in check_redis(settings) if finding.outcome == "fail"]
        assert len(failures) == 1, failures
        assert "\n" not in failures[0].said
        assert PASSWORD not in failures[0].said
        assert "redis.cluster" not in failures[0].said


async def test_a_wrong_password_is_one_sentence() -> None:
    async with restricted_redis(documented_rights()) as redis:
        wrong = redis.model_copy(update={"password": SecretStr("another")})
        with pytest.raises(KbertError, match=r"redis\.password") as refused:
            await reads(wrong)
        assert "\n" not in str(refused.value)
        assert "another" not in str(refused.value)
