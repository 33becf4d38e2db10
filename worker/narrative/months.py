"""Calendar months as the index knows them: ``YYYY-MM`` in Korean time."""

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Final
from zoneinfo import ZoneInfo

from worker.errors import ConfigurationError

SEOUL: Final = ZoneInfo("Asia/Seoul")
_MONTH: Final = re.compile(r"(\d{4})-(0[1-9]|1[0-2])")


def month_of(time: datetime) -> str:
    """The month in which a moment lies in Seoul."""
    return f"{time.astimezone(SEOUL):%Y-%m}"


def running_month() -> str:
    """The month that is not over yet."""
    return month_of(datetime.now(UTC))


def parse_month(text: str) -> str:
    """``text``, if it is a month.

    Raises:
        ConfigurationError: it is none.
    """
    if not _MONTH.fullmatch(text):
        raise ConfigurationError(f"{text!r} is no month: write it as 2015-01.")
    return text


def number(month: str) -> int:
    """Months since the year 0, so that neighbours differ by one."""
    year, of_year = month.split("-")
    return int(year) * 12 + int(of_year) - 1


def name(month_number: int) -> str:
    """The inverse of `number`."""
    year, of_year = divmod(month_number, 12)
    return f"{year:04d}-{of_year + 1:02d}"


def months_between(first: str, last: str) -> Iterator[str]:
    """Every month from ``first`` to ``last``, both included."""
    return (name(n) for n in range(number(first), number(last) + 1))
