"""Errors that end a command with one sentence instead of a traceback."""


class KbertError(Exception):
    """Base of every error whose message is meant for the user as it stands."""


class ConfigurationError(KbertError):
    """A setting is missing or wrong; the message names it and the mend."""


class ConnectionFailedError(KbertError):
    """Kafka or Redis could not be reached; the message names the address setting."""
