"""Where a server of this project may listen, and the token that it asks for beyond this machine."""

import hmac
import ipaddress

from pydantic import SecretStr

from worker.errors import ConfigurationError


def check_binding(section: str, host: str, token: SecretStr | None) -> None:
    """Refuse to stand open on a network.

    Args:
        section: of the settings, such as ``serve``.
        host: where to listen.
        token: what is asked for.

    Raises:
        ConfigurationError: bound beyond this machine without a token.
    """
    if token is None and not is_loopback(host):
        prefix = f"KBERT_{section.upper()}__"
        raise ConfigurationError(
            f"{section}.host ({prefix}HOST) is {host}, which others can reach: set {section}.token "
            f"({prefix}TOKEN) to a secret of 16 characters or more, or bind to 127.0.0.1."
        )


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach it."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def bears(authorization: str, token: bytes) -> bool:
    """Whether the header ``Authorization`` holds the token; in constant time."""
    scheme, _, given = authorization.partition(" ")
    matches = hmac.compare_digest(given.strip().encode("latin-1", "replace"), token)
    return scheme.lower() == "bearer" and matches
