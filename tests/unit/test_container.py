"""Image and compose file keep the worker small: no root, nothing to write to, no rights, probes that tell."""

from pathlib import Path
from typing import Any

import pytest
import yaml

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
    (probe,) = [part for part in service["healthcheck"]["test"] if "urlopen" in part]
    port = "8420" if name == "serve" else service["environment"]["KBERT_METRICS__PORT"]
    assert f"127.0.0.1:{port}/readyz" in probe


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
