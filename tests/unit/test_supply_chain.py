"""The checks of `make lint` on what others wrote: they refuse what they should, and need no network."""

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from types import ModuleType

import pytest
from packaging.utils import canonicalize_name

DEPLOY = Path(__file__).parents[2] / "deploy"


def script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, DEPLOY / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_known_vulnerability_fails(capsys: pytest.CaptureFixture[str]) -> None:
    advisories = script("check_advisories")
    vulnerable = {"name": "x", "version": "1", "vulns": [{"id": "PYSEC-1", "fix_versions": ["1.1"]}]}
    well = {"name": "y", "version": "1", "vulns": []}
    assert advisories.judge([well, vulnerable]) == 1
    assert "x 1: PYSEC-1, mended in 1.1" in capsys.readouterr().out
    assert advisories.judge([well]) == 0


def test_an_index_without_advisories_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    assert script("check_advisories").judge([{"name": "x", "skip_reason": "not found"}]) == 0
    assert "NOT CHECKED" in capsys.readouterr().err


def test_the_pins_of_both_environments_are_audited(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    advisories = script("check_advisories")
    asked: list[str] = []

    def audit(pins: Path) -> list[dict[str, object]]:
        asked.append(pins.name)
        vulnerable = pins.name == "constraints-bots.txt"
        known = [{"id": "PYSEC-1", "fix_versions": []}] if vulnerable else []
        return [
            {"name": "x", "version": "1" if vulnerable else "2", "vulns": known},
            {"name": "both", "version": "1", "vulns": []},
        ]

    monkeypatch.setattr(advisories, "audit", audit)
    assert advisories.main() == 1
    assert asked == [path.name for path in sorted(DEPLOY.glob("constraints*.txt"), reverse=True)]
    assert "3 of 3 packages checked" in capsys.readouterr().out


@pytest.mark.parametrize("silent", ["constraints.txt", "constraints-bots.txt"])
def test_what_one_file_has_is_judged_where_the_other_gets_no_answer(
    silent: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    advisories = script("check_advisories")
    vulnerable = {"name": "x", "version": "1", "vulns": [{"id": "PYSEC-1", "fix_versions": []}]}
    monkeypatch.setattr(advisories, "audit", lambda pins: None if pins.name == silent else [vulnerable])
    assert advisories.main() == 1


def test_without_a_network_it_is_said_and_goes_on() -> None:
    nowhere = dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"), "http://127.0.0.1:1")
    done = subprocess.run(
        [sys.executable, str(DEPLOY / "check_advisories.py")],
        env=os.environ | nowhere | {"NO_PROXY": "", "no_proxy": ""},
        capture_output=True,
        text=True,
        timeout=170,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("NOT CHECKED") == 2


def pins(file: Path) -> dict[str, str]:
    """Version by canonical name."""
    lines = [line.split("==") for line in file.read_text("utf-8").splitlines()]
    return {canonicalize_name(name): version for name, version in lines}


def test_all_that_the_project_needs_is_pinned() -> None:
    project = tomllib.loads((DEPLOY.parent / "pyproject.toml").read_text("utf-8"))
    needed, _ = script("check_licences").closure(project["project"])
    assert needed - set(pins(DEPLOY / "constraints.txt")) == {"pip"}  # which reads the file
    (setuptools,) = project["build-system"]["requires"]  # torch needs it as well
    for file in DEPLOY.glob("constraints*.txt"):
        assert f"setuptools=={pins(file)['setuptools']}" == setuptools


def test_licences_that_are_not_allowed_fail() -> None:
    licences = script("check_licences")
    rules = {"allow": ["MIT"], "except": {"named": "for a reason", "nvidia-*": "torch requires them"}}
    assert licences.judge("x", ["MIT"], rules) is None
    assert "GPL" in licences.judge("x", ["MIT", "GPL-3.0-only"], rules)
    assert "no licence" in licences.judge("x", [], rules)
    assert licences.judge("named", ["GPL-3.0-only"], rules) is None
    assert licences.judge("nvidia-cudnn-cu13", ["LicenseRef-NVIDIA-Proprietary"], rules) is None
    assert list(licences._named("MPL-2.0 AND (Apache-2.0 OR MIT)")) == ["MPL-2.0", "Apache-2.0", "MIT"]


def test_the_licences_of_this_project_are_allowed() -> None:
    licences = script("check_licences")
    assert (
        "redis" in licences.closure({"name": "p", "dependencies": ["redis"], "optional-dependencies": {}})[0]
    )
    assert licences.main() == 0


def test_the_environment_of_the_bots_is_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    licences = script("check_licences")
    other = tmp_path / "python"
    other.write_text(f"""#!{sys.executable}
import sys
assert sys.argv[2] == "--json"
print('[["only-there"], ["nowhere"], ["only-there is under GPL, which is not allowed"]]')
""")
    other.chmod(0o755)
    monkeypatch.setattr(licences, "examined", lambda project: (["here"], ["nowhere", "only-there"], []))
    assert licences.main([str(tmp_path / "not-there")]) == 0
    assert "NOT CHECKED: nowhere, only-there" in capsys.readouterr().err
    assert licences.main([str(other)]) == 1
    said = capsys.readouterr()
    assert "only-there is under GPL" in said.out
    assert "2 packages, 1 not allowed" in said.out
    assert said.err.splitlines() == ["licences: not installed, NOT CHECKED: nowhere"]


def test_an_interpreter_says_what_it_finds() -> None:
    packages, absent, refused = script("check_licences").of_other(Path(sys.executable))
    assert "redis" in packages
    assert "redis" not in absent
    assert refused == []


def test_lint_looks_at_the_environment_of_the_bots() -> None:
    lines = (DEPLOY.parent / "Makefile").read_text("utf-8").splitlines()
    assert "\t$(BIN)/python deploy/check_licences.py $(BOTS_VENV)/bin/python" in lines


def test_the_matrix_of_faults_takes_options_from_make() -> None:
    lines = (DEPLOY.parent / "Makefile").read_text("utf-8").splitlines()
    assert "\t@$(BIN)/python -m tests.faults.matrix $(ARGS)" in lines


@pytest.mark.skipif(shutil.which("make") is None, reason="needs make")
def test_an_environment_without_pip_is_made_whole(tmp_path: Path) -> None:
    """As Debian without python3-venv, or Ctrl-C in ensurepip, leave it: a python and nothing else."""
    python, environment = tmp_path / "python", tmp_path / "venv"
    (environment / "bin").mkdir(parents=True)
    python.write_text('#!/bin/sh\n[ "$2" != venv ] || ln -s /bin/true "$3/bin/pip"\n')
    python.chmod(0o755)
    (environment / "bin" / "python").symlink_to(python)
    variables = [f"PYTHON={python}", f"VENV={environment}", f"BOTS_VENV={tmp_path / 'bots'}"]
    done = subprocess.run(
        ["make", *variables, f"{environment}/.demo"], cwd=DEPLOY.parent, capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert (environment / ".demo").exists()


def test_no_one_is_told_to_install_a_name_that_is_not_on_pypi() -> None:
    """Whoever registered it there would be installed."""
    root = DEPLOY.parent
    for file in (*root.glob("*.md"), *(root / "worker").rglob("*.md")):
        told = re.findall(r"pip install '?kbert-stream[^`]*", file.read_text("utf-8"))
        assert all(" @ file:///" in command for command in told), file
