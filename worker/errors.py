"""Errors that end a command with one sentence instead of a traceback."""


class KbertError(Exception):
    """Base of every error whose message is meant for the user as it stands."""


class ConfigurationError(KbertError):
    """A setting is missing or wrong; the message names it and the mend."""


class ConnectionFailedError(KbertError):
    """Kafka or Redis could not be reached; the message names the address setting."""


def first_of(errors: BaseExceptionGroup[BaseException]) -> BaseException:
    """The first error of a group, or of a group in it."""
    error: BaseException = errors
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def kafka_unreachable(bootstrap_servers: str, error: Exception) -> ConnectionFailedError:
    """The sentence for a broker that does not answer."""
    return ConnectionFailedError(
        f"No Kafka broker answers at kafka.bootstrap_servers={bootstrap_servers}: "
        f"start one or correct the setting ({error})."
    )
