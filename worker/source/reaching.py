"""Why a broker cannot be reached, or refuses us, in one sentence.

aiokafka logs what a connection failed of and raises "unable to bootstrap" whatever it was, so a wrong
password looks like a wrong address. Here one connection is made by hand, and its error read.
"""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final, NamedTuple

from aiokafka.conn import AIOKafkaConnection, create_conn
from aiokafka.errors import (
    AuthenticationFailedError,
    BrokerResponseError,
    ClusterAuthorizationFailedError,
    GroupAuthorizationFailedError,
    IllegalSaslStateError,
    InconsistentGroupProtocolError,
    InvalidSessionTimeoutError,
    KafkaError,
    KafkaTimeoutError,
    SaslAuthenticationFailed,
    TopicAuthorizationFailedError,
    TransactionalIdAuthorizationFailed,
    UnknownTopicOrPartitionError,
    UnsupportedSaslMechanismError,
    kafka_errors,
)

from worker.errors import ConfigurationError, ConnectionFailedError, KbertError, kafka_unreachable
from worker.settings import KafkaSettings
from worker.tls import refused_handshake

FORBIDDEN: Final = (
    ClusterAuthorizationFailedError,
    GroupAuthorizationFailedError,
    TopicAuthorizationFailedError,
    TransactionalIdAuthorizationFailed,
)
"""What a broker answers a user who lacks a right."""

_SECONDS = 10.0


class GroupMaxSizeReachedError(BrokerResponseError):  # type: ignore[misc]
    """A group has no room for one more member; aiokafka knows no such code."""

    errno = 81
    message = "GROUP_MAX_SIZE_REACHED"
    description = "The consumer group has reached its max size."


kafka_errors.setdefault(GroupMaxSizeReachedError.errno, GroupMaxSizeReachedError)


class Group(NamedTuple):
    """A consumer group, for the sentence of a coordinator that refuses us."""

    name: str
    name_setting: str
    session_timeout: float
    """Seconds."""
    session_setting: str


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


async def why_unreachable(
    kafka: KafkaSettings,
    error: Exception,
    *,
    topic: str | None = None,
    setting: str | None = None,
    group: Group | None = None,
) -> KbertError:
    """The sentence for a client that could not start; asks each bootstrap server for its reason.

    Args:
        topic: the one that the client asked for.
        setting: the one that names it.
        group: the one that it was to join.
    """
    refused = refusal(error, topic=topic, setting=setting, group=group)
    if refused is not None:
        return refused
    for server in kafka.bootstrap_servers.split(","):
        try:
            (await open_connection(kafka, server)).close()
        except ConnectionFailedError as found:
            return found
    if group is None or not _is_answer(error):
        return kafka_unreachable(kafka.bootstrap_servers, error)
    return ConnectionFailedError(
        f"Kafka at kafka.bootstrap_servers={kafka.bootstrap_servers} answers, and does not let us into the "
        f"consumer group {group.name}: correct {group.name_setting}, or look at its logs ({error})."
    )


async def ask(kafka: KafkaSettings) -> None:
    """Connect to one of the bootstrap servers.

    Raises:
        ConnectionFailedError: none lets us; with the reason of the last.
    """
    refused: ConnectionFailedError | None = None
    for server in kafka.bootstrap_servers.split(","):
        try:
            (await open_connection(kafka, server)).close()
        except ConnectionFailedError as error:
            refused = error
        else:
            return
    if refused is not None:
        raise refused


def refusal(
    error: BaseException | None,
    *,
    topic: str | None = None,
    setting: str | None = None,
    group: Group | None = None,
) -> ConfigurationError | None:
    """The sentence where a broker has answered: no such topic, no right, no place in the group.

    None for any other error.

    Args:
        topic: the one that was asked for, where the error does not know it.
        setting: the one that names it.
        group: the one that was to be joined.
    """
    if error is None:
        return None
    if group is not None and (kept_out := _kept_out(error, group)) is not None:
        return ConfigurationError(kept_out)
    if not isinstance(error, (UnknownTopicOrPartitionError, *FORBIDDEN)):
        return refusal(error.__cause__, topic=topic, setting=setting, group=group)
    named = named_by(error)
    topic = named or topic or "that the settings name"
    if isinstance(error, GroupAuthorizationFailedError):
        said = f"Kafka forbids us the consumer group {named}: allow this user Read on it."
    elif isinstance(error, TransactionalIdAuthorizationFailed):
        said = f"Kafka forbids us the transactional id {named}: allow this user Write and Describe on it."
    elif isinstance(error, ClusterAuthorizationFailedError):
        said = (
            "Kafka forbids us a right on the cluster: allow this user IdempotentWrite, or set "
            "kafka.idempotent_producer=false."
        )
    elif isinstance(error, TopicAuthorizationFailedError):
        told = f" ({setting})" if setting else ""
        said = f"Kafka forbids us the topic {topic}{told}: allow this user Read, or Write if it is an output."
    else:
        said = f"There is no topic {topic}: correct {setting or 'its setting'} or run kbert topics --create."
    return ConfigurationError(said)


@contextmanager
def refusals(
    *, topic: str | None = None, setting: str | None = None, group: Group | None = None
) -> Iterator[None]:
    """A refusal of the broker in the block ends it with its sentence.

    Raises:
        ConfigurationError: as `refusal` has it.
    """
    try:
        yield
    except KafkaError as error:
        refused = refusal(error, topic=topic, setting=setting, group=group)
        if refused is None:
            raise
        raise refused from error


def _kept_out(error: BaseException, group: Group) -> str | None:
    """What a group coordinator refuses, in words; None for any other error."""
    if isinstance(error, InvalidSessionTimeoutError):
        return (
            f"Kafka does not take {group.session_setting}={group.session_timeout:g} s: set it between the "
            "broker's group.min.session.timeout.ms and group.max.session.timeout.ms (6 s and 30 minutes by "
            "default)."
        )
    if isinstance(error, InconsistentGroupProtocolError):
        return (
            f"The consumer group {group.name} has members of another program: set {group.name_setting} to "
            "one that nobody else uses."
        )
    # aiokafka hands on the representation of what it does not expect.
    if isinstance(error, KafkaError) and GroupMaxSizeReachedError.__name__ in str(error):
        return (
            f"The consumer group {group.name} ({group.name_setting}) has as many members as Kafka takes: run "
            "fewer processes, or raise the broker's group.max.size."
        )
    return None


def _is_answer(error: Exception) -> bool:
    """Whether a broker has said so, and not a connection that failed."""
    return isinstance(error, KafkaError) and not (error.retriable or isinstance(error, KafkaTimeoutError))


def named_by(error: BaseException) -> str:
    """What aiokafka says was refused: one name, or a set of them; empty where it does not say."""
    names = error.args[0] if error.args else ""
    return ", ".join(sorted(names)) if isinstance(names, set) else names if isinstance(names, str) else ""


def _is_oauth(kafka: KafkaSettings) -> bool:
    return kafka.sasl_mechanism == "OAUTHBEARER"


def _hinted(kafka: KafkaSettings, error: Exception) -> Exception:
    """A broker that hangs up, or is silent, in the middle of the first request may speak another protocol."""
    if isinstance(error, ConnectionRefusedError):
        return error
    text = str(error) or type(error).__name__
    protocol = kafka.security_protocol
    return ConnectionError(f"{text}; a listener of another protocol than {protocol} does this too")
