"""How much one client may ask: requests a second."""

import ipaddress
import math
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Final

_CLIENTS: Final = 10_000
_V6_NETWORK: Final = 64


class RateLimit:
    """A bucket of tokens for each client, of the last 10,000 clients.

    Args:
        rate: requests a second that a client may send for ever.
        burst: requests that it may send at once after a pause.
    """

    def __init__(self, rate: float, burst: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._rate = rate
        self._burst = burst
        self._clock = clock
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._buckets)

    def wait(self, client: str) -> int:
        """0 where the request is admitted, else whole seconds after which the next one is."""
        now = self._clock()
        left, at = self._buckets.pop(client, (float(self._burst), now))
        left = min(float(self._burst), left + (now - at) * self._rate)
        admitted = left >= 1
        self._buckets[client] = (left - admitted, now)
        if len(self._buckets) > _CLIENTS:
            self._buckets.popitem(last=False)  # the one that was silent for longest
        return 0 if admitted else math.ceil((1 - left) / self._rate)


def client_of(address: str) -> str:
    """Who an address is: itself, or its network in IPv6, where a client has 2^64 of them."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:  # a Unix socket's
        return address
    if parsed.version == 4:
        return address
    return str(ipaddress.ip_network((parsed, _V6_NETWORK), strict=False))
