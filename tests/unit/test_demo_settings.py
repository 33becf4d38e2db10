"""The demo runs beside a production's settings."""

from pathlib import Path

from pydantic import SecretStr

from worker.commands.demo import settings_on
from worker.settings import (
    BatchSettings,
    KafkaSettings,
    MetricsSettings,
    ModelSettings,
    RedisSettings,
    Settings,
    TopicSettings,
)


def test_nothing_of_a_production_reaches_the_embedded_servers(tmp_path: Path) -> None:
    authorities = tmp_path / "ca.pem"
    authorities.touch()
    production = Settings(
        pipelines=["traffic"],
        delivery="exactly_once",
        kafka=KafkaSettings(
            bootstrap_servers="kafka-1:9092,kafka-2:9092",
            security_protocol="SASL_SSL",
            sasl_username="kbert",
            sasl_password=SecretStr("hush"),
            ssl_cafile=authorities,
        ),
        redis=RedisSettings(
            url=SecretStr("rediss://redis:6380/0"),
            username="kbert",
            password=SecretStr("hush"),
            ssl_cafile=authorities,
            cluster=True,
            prefix="mine:",
        ),
        topics=TopicSettings(raw="mine", replication_factor=3),
        metrics=MetricsSettings(port=9100),
        model=ModelSettings(ref="mine"),
        batch=BatchSettings(max_batch_tokens=512),
    )
    local = settings_on(production, "127.0.0.1:4711", "redis://127.0.0.1:4712/0")
    options = local.kafka.client_options()
    assert options.pop("client_id")
    assert options == {"bootstrap_servers": "127.0.0.1:4711", "security_protocol": "PLAINTEXT"}
    assert local.redis.url.get_secret_value() == "redis://127.0.0.1:4712/0"
    assert local.redis.client_options() == {}
    assert not local.redis.cluster
    assert (local.pipelines, local.delivery) == (["crypto"], "at_least_once")
    assert (local.metrics.port, local.topics.replication_factor) == (None, 1)
    assert (local.redis.prefix, local.topics.raw) == ("mine:", "mine")
    assert (local.model, local.batch) == (production.model, production.batch)
    Settings.model_validate(local.model_dump())
