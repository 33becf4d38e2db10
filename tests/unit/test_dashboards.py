"""Alert rules, the board and the table name metrics that exist, and the table names all of them."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import promql_parser
import pytest
import yaml
from prometheus_client import REGISTRY

import worker.serve.metrics
import worker.telemetry.metrics  # noqa: F401 - both register theirs

ROOT = Path(__file__).parents[2]
PARTS = {"worker-crypto", "worker-traffic", "aggregates", "narrative"}
NAME = re.compile(r"\bkbert_[a-z_]+\b")


def families() -> dict[str, set[str]]:
    """Name as a reader writes it → names of its samples."""
    found: dict[str, set[str]] = {}
    for family in REGISTRY.collect():
        if not family.name.startswith("kbert_"):
            continue
        if family.type == "counter":
            found[f"{family.name}_total"] = {f"{family.name}_total"}
        elif family.type == "histogram":
            found[family.name] = {f"{family.name}_{kind}" for kind in ("bucket", "sum", "count")}
        else:
            found[family.name] = {family.name}
    return found


@pytest.mark.parametrize("file", ["deploy/prometheus/alerts.yml", "deploy/grafana/kbert-stream.json"])
def test_what_is_asked_for_exists(file: str) -> None:
    asked = set(NAME.findall((ROOT / file).read_text("utf-8")))
    samples = set().union(*families().values())
    assert len(asked) > 5
    assert asked <= samples, asked - samples


def expressions(node: Any) -> Iterator[str]:
    """Every `expr` of a parsed file."""
    if isinstance(node, dict):
        if isinstance(text := node.get("expr"), str):
            yield text
        node = list(node.values())
    if isinstance(node, list):
        for inner in node:
            yield from expressions(inner)


@pytest.mark.parametrize("file", ["deploy/prometheus/alerts.yml", "deploy/grafana/kbert-stream.json"])
def test_prometheus_takes_every_expression(file: str) -> None:
    """It refuses a whole file of rules for one that it does not."""
    found = list(expressions(yaml.safe_load((ROOT / file).read_text("utf-8"))))
    assert len(found) > 5
    for expression in found:
        # Grafana puts durations and regular expressions in the places of its variables.
        asked = expression.replace("$__rate_interval", "1m").replace("$pipeline", ".*")
        try:
            promql_parser.parse(asked)
        except ValueError as error:
            pytest.fail(f"{expression}: {error}")


def test_the_board_shows_every_metric() -> None:
    text = (ROOT / "deploy/grafana/kbert-stream.json").read_text("utf-8")
    assert json.loads(text)["panels"]
    missing = {name for name, samples in families().items() if not any(sample in text for sample in samples)}
    assert not missing


def test_the_table_is_complete() -> None:
    table = (ROOT / "worker/telemetry/README.md").read_text("utf-8")
    rows = "\n".join(line.split("|")[1] for line in table.splitlines() if line.startswith("| `kbert_"))
    assert set(NAME.findall(rows)) == set(families())


def test_alerts_of_absence_name_parts_that_exist() -> None:
    text = (ROOT / "deploy/prometheus/alerts.yml").read_text("utf-8")
    asked = re.findall(r'absent\(kbert_ready\{part=~"([^"]+)"\}\)', text)
    found = {part for pattern in asked for part in PARTS if re.fullmatch(pattern, part)}
    assert len(asked) == 2
    assert found == PARTS
    assert "(kbert_ready offset 1h) unless max by (job, part) (kbert_ready)" in text


def test_every_alert_says_what_to_do() -> None:
    rules = yaml.safe_load((ROOT / "deploy/prometheus/alerts.yml").read_text("utf-8"))["groups"][0]["rules"]
    assert len({rule["alert"] for rule in rules}) == len(rules)
    for rule in rules:
        assert {"summary", "description"} == set(rule["annotations"])
        assert rule["labels"]["severity"] in ("warning", "critical")
