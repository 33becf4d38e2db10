"""Licences of everything that `pip install` may bring, against the list in pyproject.toml, for `make lint`.

    check_licences.py [INTERPRETER ...]

Every licence that a package names has to be allowed in `[tool.kbert.licences]`, or the package has to be
excepted there by name or pattern, with the reason. The environments of the other interpreters are looked at
as well, where they are there; what none has is named and passed over.
"""

import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatch
from importlib import metadata
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

PROJECT = Path(__file__).parents[1] / "pyproject.toml"


def main(arguments: Sequence[str] = ()) -> int:
    """Print what is not allowed; 1 where anything is."""
    project = tomllib.loads(PROJECT.read_text("utf-8"))
    if "--json" in arguments:
        print(json.dumps(examined(project)))
        return 0
    packages, absent, refused = examined(project)
    for interpreter in filter(Path.exists, map(Path, arguments)):
        others = of_other(interpreter)
        absent = [name for name in absent if name in others[1]]
        packages = sorted({*packages, *others[0]})
        refused = sorted({*refused, *others[2]})
    for problem in refused:
        print(problem)
    if absent:
        print(f"licences: not installed, NOT CHECKED: {', '.join(absent)}", file=sys.stderr)
    print(f"licences: {len(packages)} packages, {len(refused)} not allowed")
    return 1 if refused else 0


def examined(project: Mapping[str, Any]) -> tuple[list[str], list[str], list[str]]:
    """Packages of this environment, those that it lacks, and what is not allowed."""
    rules = project["tool"]["kbert"]["licences"]
    packages, absent = closure(project["project"])
    refused = [problem for name in sorted(packages) if (problem := judge(name, licences(name), rules))]
    return sorted(packages), sorted(absent), refused


def of_other(interpreter: Path) -> tuple[list[str], list[str], list[str]]:
    """The same, as another environment's interpreter finds it."""
    command = [str(interpreter), __file__, "--json"]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)  # noqa: S603
    packages, absent, refused = json.loads(done.stdout)
    return packages, absent, refused


def closure(project: Mapping[str, Any]) -> tuple[set[str], set[str]]:
    """Names of all that the project and its extras need, installed and not."""
    extras = project["optional-dependencies"].values()
    waiting = [Requirement(text) for group in (project["dependencies"], *extras) for text in group]
    seen: set[tuple[str, str]] = set()
    packages: set[str] = set()
    absent: set[str] = set()
    while waiting:
        requirement = waiting.pop()
        name = canonicalize_name(requirement.name)
        if name == canonicalize_name(project["name"]):
            continue
        for extra in ("", *requirement.extras):
            if (name, extra) in seen:
                continue
            seen.add((name, extra))
            try:
                needs = metadata.requires(name) or []
            except metadata.PackageNotFoundError:
                absent.add(name)
                continue
            packages.add(name)
            waiting += (found for found in map(Requirement, needs) if _applies(found, extra))
    return packages, absent


def licences(name: str) -> list[str]:
    """What a package says of itself, the most exact first: expression, classifiers, free text."""
    about = metadata.metadata(name)
    if expression := about.get("License-Expression"):
        return list(_named(expression))
    classifiers = [
        c.rsplit(" :: ", 1)[-1] for c in about.get_all("Classifier") or () if c.startswith("License")
    ]
    exact = [c for c in classifiers if c not in ("OSI Approved", "DFSG approved")]
    text = (about.get("License") or "").strip()
    return exact or (list(_named(text.splitlines()[0][:60])) if text else [])


def judge(name: str, found: list[str], rules: Mapping[str, Any]) -> str | None:
    """Why a package may not be used; None where it may."""
    if any(fnmatch(name, pattern) for pattern in rules["except"]):
        return None
    refused = [licence for licence in found if licence not in rules["allow"]]
    if not found:
        return f"{name} names no licence: except it by name in [tool.kbert.licences], with the reason"
    return f"{name} is under {', '.join(refused)}, which is not allowed" if refused else None


def _named(expression: str) -> Iterator[str]:
    for part in re.split(r"\s+(?:AND|OR)\s+|[()]", expression):
        if part.strip():
            yield part.strip()


def _applies(requirement: Requirement, extra: str) -> bool:
    return requirement.marker is None or requirement.marker.evaluate({"extra": extra})


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
