"""What can go wrong in this room."""

from worker.errors import ConfigurationError, KbertError


class CheckpointError(ConfigurationError):
    """A checkpoint cannot be used; the message is one sentence that names what and the mend."""


class WeightsMissing(CheckpointError):  # noqa: N818 - a state of the folder
    """A folder holds no weights, or not all."""


class DeviceError(ConfigurationError):
    """The asked device, precision or number of threads is not to be had on this machine."""


class TokeniseError(KbertError):
    """The tokeniser gave up on a text."""


class EngineOutOfMemory(Exception):  # noqa: N818 - named after torch.OutOfMemoryError
    """The batch did not fit; a smaller one may."""


class EngineStopped(KbertError):  # noqa: N818 - a state, not a fault of the caller
    """The engine thread is closed or dead; no later batch will run."""


def first_line(error: BaseException) -> str:
    """Of what a library says, for a message of one line; the name of the error where it says nothing."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
