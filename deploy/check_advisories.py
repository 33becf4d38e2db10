"""Known vulnerabilities of the pinned packages: pip-audit over both files of pins, for `make lint`.

Status 1 where one is known. Where no advisory service answers, as without a network, it says that nothing
was checked and ends well: a commit on a train is no vulnerability.
"""

import json
import subprocess
import sys
from pathlib import Path

PINS = ("constraints.txt", "constraints-bots.txt")
SECONDS = 300


def main() -> int:
    """Run pip-audit and judge its reports."""
    found: dict[tuple[object, object], dict[str, object]] = {}
    for name in PINS:
        report = audit(Path(__file__).parent / name)
        if report is None:
            continue  # what the other file has is known all the same
        found |= {
            (package["name"], package.get("version", package.get("skip_reason"))): package
            for package in report
        }
    return judge(list(found.values())) if found else 0


def audit(pins: Path) -> list[dict[str, object]] | None:
    """pip-audit's report of one file, by itself: the two pin some packages differently; None without one."""
    command = [
        *(sys.executable, "-m", "pip_audit", "--requirement", str(pins), "--no-deps", "--disable-pip"),
        *("--progress-spinner", "off", "--format", "json", "--timeout", "10"),
    ]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)  # noqa: S603
        report: list[dict[str, object]] = json.loads(done.stdout)["dependencies"]
    except (subprocess.TimeoutExpired, ValueError) as error:
        # pip-audit has no status of its own for a service that is out of reach: it writes no report.
        why = getattr(error, "stderr", None) or (done.stderr if isinstance(error, ValueError) else "")
        print(
            f"advisories: no service answers, {pins.name} NOT CHECKED\n{str(why).strip()[-300:]}",
            file=sys.stderr,
        )
        return None
    return report


def judge(report: list[dict[str, object]]) -> int:
    """Print what is known; 1 where that is a vulnerability."""
    audited = [package for package in report if "skip_reason" not in package]
    if not audited:
        print("advisories: the package index in use has none, NOT CHECKED", file=sys.stderr)
        return 0
    known = [(package, found) for package in audited for found in package["vulns"]]  # type: ignore[attr-defined]
    for package, found in known:
        fixed = ", ".join(found["fix_versions"]) or "no version yet"
        print(f"{package['name']} {package['version']}: {found['id']}, mended in {fixed}")
    print(f"advisories: {len(audited)} of {len(report)} packages checked, {len(known)} vulnerabilities known")
    return 1 if known else 0


if __name__ == "__main__":
    sys.exit(main())
