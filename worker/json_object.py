"""Records that have to be JSON objects; what the rooms that count signals share."""

from collections.abc import Mapping
from typing import Any

import orjson


def json_object(payload: bytes) -> Mapping[str, Any]:
    """The fields of a JSON object; none of what is no such object, so that it is rejected for them."""
    try:
        value = orjson.loads(payload)
    except orjson.JSONDecodeError:
        return {}
    return value if isinstance(value, dict) else {}
