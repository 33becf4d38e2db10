"""Why a broker cannot be reached, in one sentence.

aiokafka logs what a connection failed of and raises "unable to bootstrap" whatever it was, so a wrong
password looks like a wrong address. Here one connection is made by hand, and its error read.
"""

import asyncio
from typing import Any

from aiokafka.conn import AIOKafkaConnection, create_conn
from aiokafka.errors import (
    AuthenticationFailedError,
    IllegalSaslStateError,
    KafkaError,
    SaslAuthenticationFailed,
    UnsupportedSaslMechanismError,
)

from worker.errors import ConnectionFailedError, KbertError, kafka_unreachable
from worker.settings import KafkaSettings
from worker.tls import refused_handshake

_SECONDS = 10.0


async def open_connection(kafka: KafkaSettings, server: str) -> AIOKafkaConnection:
    """A connection to one of the bootstrap servers, with TLS and SASL done; the caller closes it.

    Raises:
        ConnectionFailedError: with the reason.
    """
    options: dict[str, Any] = kafka.client_options()
    del options["bootstrap_servers"]
    host, _, port = server.strip().rpartition(":")
    name = f"kafka.bootstrap_servers={server.strip()}"
    try:
        async with asyncio.timeout(_SECONDS):
            return await create_conn(host.strip("[]"), int(port), **options)
    except KbertError:
        raise
    except (SaslAuthenticationFailed, AuthenticationFailedError) as error:
        who = (
            "kafka.oauth_client_id and its scope"
            if _is_oauth(kafka)
            else ("kafka.sasl_username and kafka.sasl_password")
        )
        raise ConnectionFailedError(f"Kafka at {name} refuses us: correct {who}.") from error
    except (UnsupportedSaslMechanismError, IllegalSaslStateError) as error:
        raise ConnectionFailedError(
            f"Kafka at {name} does not take kafka.sasl_mechanism={kafka.sasl_mechanism}: "
            "set one that its listener has enabled."
        ) from error
    except (OSError, KafkaError, ValueError) as error:  # TimeoutError is an OSError
        refused = refused_handshake(error, "kafka", server.strip())
        if refused is not None:
            raise ConnectionFailedError(f"Kafka at {name} cannot be trusted: {refused}") from error
        raise kafka_unreachable(server.strip(), _hinted(kafka, error)) from error


async def why_unreachable(kafka: KafkaSettings, error: Exception) -> ConnectionFailedError:
    """The sentence for a client that could not start; asks each bootstrap server for its reason."""
    for server in kafka.bootstrap_servers.split(","):
        try:
            (await open_connection(kafka, server)).close()
        except ConnectionFailedError as found:
            return found
    return kafka_unreachable(kafka.bootstrap_servers, error)


def _is_oauth(kafka: KafkaSettings) -> bool:
    return kafka.sasl_mechanism == "OAUTHBEARER"


def _hinted(kafka: KafkaSettings, error: Exception) -> Exception:
    """A broker that hangs up, or is silent, in the middle of the first request may speak another protocol."""
    if isinstance(error, ConnectionRefusedError):
        return error
    text = str(error) or type(error).__name__
    protocol = kafka.security_protocol
    return ConnectionError(f"{text}; a listener of another protocol than {protocol} does this too")
