"""Times on the wire: RFC 3339 in UTC."""

from datetime import UTC, datetime
from typing import Annotated

from pydantic import AfterValidator


def to_utc(value: datetime) -> datetime:
    """A time without a zone is taken as UTC: a guess at local time would move windows silently."""
    if value.tzinfo is None:
        return value.replace(tzinfo=UTC)
    try:
        return value.astimezone(UTC)
    except OverflowError as error:
        raise ValueError("time is outside the years 1 to 9999 in UTC") from error


UtcDatetime = Annotated[datetime, AfterValidator(to_utc)]
