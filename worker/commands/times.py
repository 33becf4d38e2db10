"""Times on the command line."""

import re
from datetime import UTC, datetime, timedelta
from typing import Final

from worker.errors import ConfigurationError

_UNITS: Final = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


def parse_time(option: str, text: str | None) -> datetime | None:
    """RFC 3339 (UTC where no zone is given), or an age such as ``30m``, ``2h``, ``1d``.

    Raises:
        ConfigurationError: it is neither.
    """
    if text is None:
        return None
    age = re.fullmatch(r"(\d+)([smhd])", text)
    try:
        if age is not None:
            return datetime.now(UTC) - timedelta(**{_UNITS[age[2]]: int(age[1])})
        time = datetime.fromisoformat(text)
        return time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)
    except (ValueError, OverflowError):
        raise ConfigurationError(
            f"{option} {text!r} is no time: give RFC 3339 (2026-01-05T09:30:00Z), or an age (2h)."
        ) from None
