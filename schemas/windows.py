"""The rolling windows, and the symbols that they are kept by."""

import re
from typing import Final, Literal, get_args

Window = Literal["1m", "5m", "15m", "1h", "4h", "24h", "7d"]

WINDOWS: Final[tuple[Window, ...]] = get_args(Window)

WINDOW_SECONDS: Final[dict[Window, int]] = {
    "1m": 60,
    "5m": 300,
    "15m": 900,
    "1h": 3_600,
    "4h": 14_400,
    "24h": 86_400,
    "7d": 604_800,
}

MARKET: Final = "MARKET"
"""Pseudo-symbol that sums every relevant signal."""

SYMBOL: Final = re.compile(r"[A-Z0-9]{1,15}")
"""What a whole symbol looks like."""
