"""Image and compose file keep the worker small: no root, nothing to write to, no rights, probes that tell."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
import yaml

from worker.settings import KafkaSettings, RedisSettings, load_settings

ROOT = Path(__file__).parents[2]
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text("utf-8"))
OURS = {name: service for name, service in COMPOSE["services"].items() if service["image"] == "kbert-stream"}


@pytest.mark.parametrize("name", sorted(OURS))
def test_services_have_nothing_that_they_do_not_need(name: str) -> None:
    service = OURS[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert "privileged" not in service
    assert "user" not in service  # the image's own
    for port in service.get("ports", ()):
        assert port.startswith("127.0.0.1:")


@pytest.mark.parametrize("name", sorted(set(OURS) - {"topics"}))
def test_health_is_readiness(name: str) -> None:
    service = OURS[name]
    probe = service["healthcheck"]["test"][-1]
    port = "8420" if name == "serve" else service["environment"]["KBERT_METRICS__PORT"]
    assert f"127.0.0.1:{port}/readyz" in probe


class _Ready(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200 if self.path == "/readyz" else 404)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.mark.parametrize("name", ["worker", "serve"])
def test_health_asks_no_proxy(name: str) -> None:
    with HTTPServer(("127.0.0.1", 0), _Ready) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        probe = OURS[name]["healthcheck"]["test"][-1]
        code = re.sub(r"127\.0\.0\.1:\d+", f"127.0.0.1:{server.server_port}", probe)
        proxied = os.environ | {"http_proxy": "http://127.0.0.1:9", "no_proxy": ""}
        done = subprocess.run([sys.executable, "-c", code], env=proxied, capture_output=True, check=False)
        server.shutdown()
    assert done.returncode == 0, done.stderr


def named_in_the_readme() -> Iterator[str]:
    """Its variables; "…__PORT" is one of the section that was named last."""
    section = ""
    for name in re.findall(r"KBERT_\w+|…__\w+", (ROOT / "README.md").read_text("utf-8")):
        section = section if name.startswith("…") else name.rpartition("__")[0]
        yield name.replace("…", section)


def test_what_the_readme_names_reaches_the_containers() -> None:
    names = set(named_in_the_readme())
    assert {"KBERT_DELIVERY", "KBERT_TOPICS__DEAD_LETTER", "KBERT_REDIS__PASSWORD"} <= names
    assert names <= set(OURS["serve"]["environment"])
    elsewhere = names - set(OURS["worker"]["environment"])
    assert elsewhere == {"KBERT_SERVE__HOST", "KBERT_SERVE__PORT", "KBERT_SERVE__TOKEN"}
    for service in OURS.values():
        assert service["env_file"] == [{"path": ".env", "required": False}]  # all the others
        for name, value in service["environment"].items():
            assert "$" not in value or value.startswith(f"${{{name}:-")


def test_what_the_env_file_says_of_secured_servers_is_overridden(monkeypatch: pytest.MonkeyPatch) -> None:
    """A client certificate that is not mounted, or without TLS, ended every container at once."""
    environment = {"KBERT_KAFKA__SECURITY_PROTOCOL": "SSL", "KBERT_KAFKA__IDEMPOTENT_PRODUCER": "false"}
    for section, names in (("KAFKA", KafkaSettings.model_fields), ("REDIS", RedisSettings.model_fields)):
        files = [name for name in names if name.endswith("file")]
        assert files
        environment |= {f"KBERT_{section}__{name.upper()}": f"/etc/{name}.pem" for name in files}
    of_compose = {k: v for k, v in OURS["worker"]["environment"].items() if "$" not in v}
    for name, value in (environment | of_compose | {"KBERT_DELIVERY": "exactly_once"}).items():
        monkeypatch.setenv(name, value)
    settings = load_settings(_env_file=None)
    assert (settings.kafka.security_protocol, settings.redis.ssl_certfile) == ("PLAINTEXT", None)


def test_the_image_is_built_once_and_takes_what_the_user_exports() -> None:
    assert [name for name, service in OURS.items() if "build" in service] == ["topics"]
    for name in set(OURS) - {"topics"}:
        assert "topics" in OURS[name]["depends_on"], name
        for setting in ("KBERT_DELIVERY", "KBERT_MODEL__REF", "KBERT_SINK__PUBLISH_TEXT"):
            assert OURS[name]["environment"][setting] == f"${{{setting}:-}}"


def test_servers_are_reached_from_this_machine_only() -> None:
    assert {"kafka", "redis", "worker", "aggregates", "serve", "topics"} <= set(COMPOSE["services"])
    for service in COMPOSE["services"].values():
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", ()))


def test_the_image_does_not_run_as_root() -> None:
    lines = (ROOT / "deploy" / "Dockerfile").read_text("utf-8").splitlines()
    last = max(number for number, line in enumerate(lines) if line.startswith("FROM "))
    users = [line.split()[1] for line in lines[last:] if line.startswith("USER ")]
    assert users == ["10001"]
    assert any("install -d -o 10001 /cache" in line for line in lines[last:])  # else the volume is root's
