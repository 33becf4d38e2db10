"""Settings come from environment, .env and TOML; a mistake is one sentence that names it."""

import re
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from worker.cli import app
from worker.errors import ConfigurationError
from worker.settings import explained, load_settings
from worker.tls import client_context


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    for name in list(__import__("os").environ):
        if name.startswith("KBERT_"):
            monkeypatch.delenv(name)


def test_environment_over_dotenv_over_toml_over_defaults(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "kbert.toml").write_text(
        '[kafka]\nbootstrap_servers = "toml:1"\nclient_id = "toml"\n[source]\ngroup_id = "toml"\n'
    )
    (tmp_path / ".env").write_text("KBERT_KAFKA__BOOTSTRAP_SERVERS=dotenv:1\nKBERT_SOURCE__GROUP_ID=dotenv\n")
    monkeypatch.setenv("KBERT_SOURCE__GROUP_ID", "env")
    settings = load_settings()
    assert settings.source.group_id == "env"
    assert settings.kafka.bootstrap_servers == "dotenv:1"
    assert settings.kafka.client_id == "toml"
    assert settings.topics.raw == "raw.crypto"


@pytest.mark.parametrize(
    ("variable", "value", "message"),
    [
        ("KBERT_BATCH__MAX_BATCH_TOKENS", "many", "batch.max_batch_tokens"),
        (
            "KBERT_BATCH__MAX_TOKEN",
            "1",
            "KBERT_BATCH__MAX_TOKEN is no setting: the closest is KBERT_BATCH__MAX_",
        ),
        ("KBERT_TRAFFIC__MODEL__REFF", "x", "is no setting: the closest is KBERT_TRAFFIC__MODEL__REF."),
        (
            "KBERT_KAFKA",
            '{"servers": 1}',
            "kafka.servers in KBERT_KAFKA is no setting: the closest is kafka.",
        ),
        ("KBERT_NARRATIVE__SOURCE_WEIGHTS", '{"a": Infinity}', "narrative.source_weights.a"),
        ("KBERT_BOT__WEBHOOK__COINS", '["BTC", "btc"]', "'btc' is no coin symbol"),
        (
            "KBERT_BOT__WEBHOOK__COINS",
            '["KRW-BTC"]',
            "bot.webhook.coins (KBERT_BOT__WEBHOOK__COINS) is wrong",
        ),
        ("KBERT_BOT__WEBHOOK__COINS", '["비트코인"]', "'비트코인' is no coin symbol"),
        ("KBERT_KAFKA__SECURITY_PROTOCOL", "SASL_SSL", "kafka.sasl_username"),
        ("KBERT_KAFKA__SSL_CAFILE", "/nowhere/ca.pem", "kafka.ssl_cafile"),
        ("KBERT_KAFKA__BOOTSTRAP_SERVERS", "kafka:abc", "'kafka:abc' is no host:port"),
        ("KBERT_KAFKA__BOOTSTRAP_SERVERS", "one:1,", "'' is no host:port"),
        ("KBERT_KAFKA__BOOTSTRAP_SERVERS", "kafka:65536", "'kafka:65536' is no host:port"),
        ("KBERT_KAFKA__BOOTSTRAP_SERVERS", "kafka:0", "'kafka:0' is no host:port"),
        ("KBERT_KAFKA__BOOTSTRAP_SERVERS", "::1:9092", "'::1:9092' is no host:port"),
        ("KBERT_KAFKA__BOOTSTRAP_SERVERS", "tcp://kafka:9092", "'tcp://kafka:9092' is no host:port"),
        ("KBERT_MODEL__PRECISION", "int3", "model.precision"),
        ("KBERT_TOPICS__RAW", "signals.crypto", "topics.raw and topics.signals are both 'signals.crypto'"),
        ("KBERT_TOPICS__RAW", "signals.traffic", "topics.raw and traffic.signals are both"),
        ("KBERT_TRAFFIC__RAW", "dead-letter", "traffic.raw and topics.dead_letter are both"),
        ("KBERT_TRAFFIC__SIGNALS", "signals.crypto", "topics.signals and traffic.signals are both"),
        ("KBERT_TOPICS__DEAD_LETTER", "signals.traffic", "traffic.signals and topics.dead_letter are both"),
        ("KBERT_CONFIG", "/nowhere/kbert.toml", "KBERT_CONFIG"),
        ("KBERT_PIPELINES", "traffic", """as JSON, such as KBERT_PIPELINES='["crypto", "traffic"]'."""),
        ("KBERT_SERVE__ALLOWED_HOSTS", "a.example", "(KBERT_SERVE__ALLOWED_HOSTS) is a list"),
        ("KBERT_NARRATIVE__SOURCE_WEIGHTS", "x", "narrative.source_weights (KBERT_NARRATIVE__"),
        ("KBERT_KAFKA", "127.0.0.1:9092", "kafka (KBERT_KAFKA) is a section"),
        ("KBERT_DELIVERRY", "exactly_once", "KBERT_DELIVERRY is no setting: the closest is KBERT_DELIVERY."),
        ("KBERT_METRICS_PORT", "9464", "is no setting: the closest is KBERT_METRICS__PORT."),
        ("kbert_modell__ref", "x", "the closest is KBERT_MODEL__REF."),
    ],
)
def test_a_mistake_names_the_setting(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str, message: str
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(ConfigurationError) as refused:
        load_settings()
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)
    assert "TOML" not in str(refused.value)


def test_both_pipelines_may_read_one_topic(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KBERT_TRAFFIC__RAW", "raw.crypto")
    assert load_settings().of("traffic").topics.raw == "raw.crypto"


def test_variables_that_are_no_settings_of_ours_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KBERT_TEST_KAFKA", "127.0.0.1:9092")
    monkeypatch.setenv("KBERT_SCREENSHOTS", "/tmp/pictures")  # noqa: S108 - nothing is written
    monkeypatch.setenv("KBERT_EMPTY", "")
    # Kubernetes has a service named kbert-api.
    for name in ("SERVICE_HOST", "SERVICE_PORT_HTTP", "PORT", "PORT_8420_TCP_ADDR"):
        monkeypatch.setenv(f"KBERT_API_{name}", "10.0.0.1")
    load_settings()


def test_a_name_in_dotenv_that_is_no_setting_is_refused(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("KBERT_DELIVERRY=exactly_once\nOTHER=1\n")
    with pytest.raises(
        ConfigurationError, match=r"KBERT_DELIVERRY of \S+/\.env is no setting: the closest is"
    ):
        load_settings()


@pytest.mark.parametrize(
    ("file", "content", "told"),
    [
        (
            ".env",
            "KBERT_LOG__LEVL=info\n",
            "KBERT_LOG__LEVL of {file} is no setting: the closest is KBERT_LOG__LEVEL.",
        ),
        (
            "kbert.toml",
            '[log]\nlevl = "info"\n',
            "log.levl in kbert.toml is no setting: the closest is log.level.",
        ),
        (
            "kbert.toml",
            '[traffic.model]\nreff = "x"\n',
            "traffic.model.reff in kbert.toml is no setting: the closest is traffic.model.ref.",
        ),
    ],
)
def test_a_misspelt_name_inside_a_section_tells_where_it_stands(
    tmp_path: Path, file: str, content: str, told: str
) -> None:
    (tmp_path / file).write_text(content)
    with pytest.raises(ConfigurationError, match=re.escape(told.format(file=tmp_path / file))):
        load_settings()


def test_dotenv_names_the_toml_file_unless_the_environment_does(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("one", "two"):
        (tmp_path / f"{name}.toml").write_text(f'[kafka]\nclient_id = "{name}"\n')
    (tmp_path / ".env").write_text("KBERT_CONFIG=one.toml\n")
    assert load_settings().kafka.client_id == "one"
    monkeypatch.setenv("KBERT_CONFIG", "")  # as docker-compose.yml has it where nothing is exported
    assert load_settings().kafka.client_id == "one"
    monkeypatch.setenv("KBERT_CONFIG", "two.toml")
    assert load_settings().kafka.client_id == "two"


@pytest.mark.parametrize("file", ["kbert.toml", "coins.toml"])
def test_a_file_that_may_not_be_read_is_told_as_such(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, file: str
) -> None:
    (tmp_path / file).write_text("")
    if file == "coins.toml":
        monkeypatch.setenv("KBERT_COINS__USER_FILE", file)
    of_pathlib = Path.open

    def opened(path: Path, *args: Any, **options: Any) -> Any:
        if path.name == file:
            raise PermissionError(13, "Permission denied", str(path))
        return of_pathlib(path, *args, **options)

    monkeypatch.setattr(Path, "open", opened)
    with pytest.raises(ConfigurationError, match=rf"{file} cannot be read: Permission denied\.$"):
        load_settings()


@pytest.mark.parametrize(("cafile", "certfile"), [("gone", None), (None, "gone")])
def test_a_certificate_that_cannot_be_read_is_not_called_a_wrong_one(
    cafile: Path | None, certfile: Path | None
) -> None:
    with pytest.raises(ConfigurationError, match=r"file=gone .*cannot be read: No such file or directory\.$"):
        client_context("kafka", cafile=cafile, certfile=certfile, keyfile=certfile)


def test_a_list_in_dotenv_is_told_as_one(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("KBERT_PIPELINES=traffic\n")
    with pytest.raises(ConfigurationError, match=r"pipelines \(KBERT_PIPELINES\) is a list: write"):
        load_settings()


@pytest.mark.parametrize("content", ["[kafka\n", "[kafak]\nx = 1\n", '[kafka]\nservers = "x"\n'])
def test_a_broken_toml_file_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "kbert.toml").write_text(content)
    with pytest.raises(ConfigurationError):
        load_settings()


def test_an_empty_list_in_the_environment_is_not_the_one_that_is_broken(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("KBERT_BOT__WEBHOOK__COINS", "BTC")
    monkeypatch.setenv("KBERT_BOT__HUMMINGBOT__PAIRS", "")
    with pytest.raises(ConfigurationError, match="KBERT_BOT__WEBHOOK__COINS"):
        load_settings()


def test_secrets_do_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KBERT_REDIS__URL", "redis://user:hunter2@redis:6379/0")
    monkeypatch.setenv("KBERT_SINK__AUTHOR_KEY", "hunter3")
    settings = load_settings()
    shown = repr(settings) + settings.model_dump_json()
    assert "hunter" not in shown
    assert settings.redis.url.get_secret_value().endswith("@redis:6379/0")


def test_an_empty_variable_counts_as_unset(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, *_ in explained():
        monkeypatch.setenv(f"KBERT_{name.replace('.', '__').upper()}", "")
    settings = load_settings()
    assert settings.sink.author_key is None
    assert settings.pipelines == ["crypto"]


@pytest.mark.parametrize(
    ("servers", "whole"),
    [
        ("kafka:9092", "kafka:9092"),
        ("a-1.example:1, b_2:65535", "a-1.example:1,b_2:65535"),
        ("[::1]:9092,[fe80::1%eth0]:9093", "[::1]:9092,[fe80::1%eth0]:9093"),
        ("kafka-1,kafka-2:9093", "kafka-1:9092,kafka-2:9093"),
    ],
)
def test_addresses_of_brokers(monkeypatch: pytest.MonkeyPatch, servers: str, whole: str) -> None:
    monkeypatch.setenv("KBERT_KAFKA__BOOTSTRAP_SERVERS", servers)
    assert load_settings().kafka.bootstrap_servers == whole


def test_a_dotenv_that_is_not_utf_8_is_refused(tmp_path: Path) -> None:
    (tmp_path / ".env").write_bytes("KBERT_LOG__LEVEL=info # 로그".encode("cp949"))
    with pytest.raises(ConfigurationError, match=r"\.env is not UTF-8"):
        load_settings()


def test_the_traffic_pipeline_is_exact_unless_it_is_told_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(
        "KBERT_TRAFFIC__MODEL__THREADS", "1"
    )  # a section that is half set keeps its other defaults
    assert load_settings(_env_file=None).of("traffic").model.precision == "fp32"
    assert load_settings(_env_file=None).model.precision == "auto"


def test_every_setting_says_what_it_means() -> None:
    assert [name for name, _, meaning in explained() if not meaning] == []


def test_config_explains_every_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KBERT_LOG__LEVEL", "loud")  # what is wrong does not keep it from being explained
    done = CliRunner().invoke(app, ["config", "--explain"])
    assert done.exit_code == 0
    lines = dict(line.split(" (", 1) for line in done.stdout.splitlines())
    assert list(lines) == [name for name, _, _ in explained()]
    assert lines["topics.replication_factor"].startswith("default 1): Replicas of a topic that")
    assert lines["redis.url"].startswith('default "redis://127.0.0.1:6379/0"): ')
    assert lines["redis.password"].startswith("no default): ")
    assert lines["traffic.model.precision"].startswith('default "fp32"): ')
    assert lines["batch.max_batch_tokens"].endswith("between 1,024 and 16,384, and 16,384 on a GPU.")
