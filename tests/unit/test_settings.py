"""Settings come from environment, .env and TOML; a mistake is one sentence that names it."""

from pathlib import Path

import pytest

from worker.errors import ConfigurationError
from worker.settings import load_settings


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
        ("KBERT_BATCH__MAX_TOKENS", "1", "batch.max_tokens"),
        ("KBERT_KAFKA__SECURITY_PROTOCOL", "SASL_SSL", "kafka.sasl_username"),
        ("KBERT_KAFKA__SSL_CAFILE", "/nowhere/ca.pem", "kafka.ssl_cafile"),
        ("KBERT_MODEL__PRECISION", "int3", "model.precision"),
        ("KBERT_CONFIG", "/nowhere/kbert.toml", "KBERT_CONFIG"),
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


@pytest.mark.parametrize("content", ["[kafka\n", "[kafak]\nx = 1\n", '[kafka]\nservers = "x"\n'])
def test_a_broken_toml_file_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "kbert.toml").write_text(content)
    with pytest.raises(ConfigurationError):
        load_settings()


def test_secrets_do_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KBERT_REDIS__URL", "redis://user:hunter2@redis:6379/0")
    monkeypatch.setenv("KBERT_SINK__AUTHOR_KEY", "hunter3")
    settings = load_settings()
    shown = repr(settings) + settings.model_dump_json()
    assert "hunter" not in shown
    assert settings.redis.url.get_secret_value().endswith("@redis:6379/0")


def test_an_empty_variable_counts_as_unset(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KBERT_SINK__AUTHOR_KEY", "")
    assert load_settings().sink.author_key is None
