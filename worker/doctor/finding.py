"""What one check found, and how to mend it."""

from dataclasses import dataclass
from typing import Literal

Outcome = Literal["ok", "warn", "fail"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report."""

    check: str
    outcome: Outcome
    said: str
    """What is so, in one sentence."""
    mend: str | None = None
    """What to do about it; None where it is well, or where ``said`` tells."""


def ok(check: str, said: str) -> Finding:
    """It is as it should be."""
    return Finding(check, "ok", said)


def warn(check: str, said: str, mend: str | None = None) -> Finding:
    """It works, and may not do so for ever."""
    return Finding(check, "warn", said, mend)


def fail(check: str, said: str, mend: str | None = None) -> Finding:
    """A worker would not start, or would stop."""
    return Finding(check, "fail", said, mend)
