"""TLS contexts from settings, and what a failed handshake means."""

import ssl
from pathlib import Path
from typing import Final

from worker.errors import ConfigurationError

_HOSTNAME_MISMATCH: Final = 62
_UNKNOWN_ISSUER: Final = (18, 19, 20, 21)
_EXPIRED: Final = 10


def client_context(
    section: str,
    *,
    cafile: Path | None,
    certfile: Path | None = None,
    keyfile: Path | None = None,
    password: str | None = None,
    check_hostname: bool = True,
) -> ssl.SSLContext:
    """A context that verifies the server, and shows a client certificate where there is one.

    Args:
        section: of the settings, ``kafka`` or ``redis``, for the sentence of an error.
        cafile: certificates to believe; the system's where absent.

    Raises:
        ConfigurationError: a file cannot be read, is no certificate or key, or the password is not the key's.
    """
    try:
        context = ssl.create_default_context(cafile=cafile)
    except ssl.SSLError as error:
        raise ConfigurationError(
            f"{section}.ssl_cafile={cafile} holds no certificates in PEM: correct the setting."
        ) from error
    except OSError as error:
        raise ConfigurationError(
            f"{section}.ssl_cafile={cafile} cannot be read: {error.strerror}."
        ) from error
    context.check_hostname = check_hostname
    if certfile is not None:
        try:
            # Without a password given, OpenSSL would ask the terminal for one.
            context.load_cert_chain(certfile, keyfile, password or "")
        except ssl.SSLError as error:
            raise ConfigurationError(
                f"{section}.ssl_certfile={certfile} and {section}.ssl_keyfile={keyfile} are no certificate "
                f"and its key in PEM, or {section}.ssl_keyfile_password is not theirs: correct the settings."
            ) from error
        except OSError as error:  # which does not name the file
            raise ConfigurationError(
                f"{section}.ssl_certfile={certfile} or {section}.ssl_keyfile={keyfile} cannot be read: "
                f"{error.strerror}."
            ) from error
    return context


def refused_handshake(error: BaseException | None, section: str, host: str) -> str | None:
    """One sentence where ``error``, or what caused it, is a TLS handshake that failed; None otherwise."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        if isinstance(error, ssl.SSLCertVerificationError):
            return _of_certificate(error, section, host)
        if isinstance(error, ssl.SSLError):
            reason = (error.reason or "unknown").replace("_", " ").lower()
            return (
                f"the TLS handshake with {host} failed ({reason}): the server may not speak TLS there, or "
                f"ask for another client certificate; correct the address, or {section}.ssl_certfile."
            )
        error = error.__cause__ or error.__context__
    return None


def _of_certificate(error: ssl.SSLCertVerificationError, section: str, host: str) -> str:
    if error.verify_code == _HOSTNAME_MISMATCH:
        return (
            f"the certificate of {host} is for another host name: connect by a name that it has, or give "
            "the server one with this name."
        )
    if error.verify_code in _UNKNOWN_ISSUER:
        return (
            f"the certificate of {host} is not signed by an authority that is believed here: set "
            f"{section}.ssl_cafile to the one that signed it."
        )
    if error.verify_code == _EXPIRED:
        return f"the certificate of {host} has expired: renew it on the server."
    return f"the certificate of {host} is refused ({error.verify_message})."
