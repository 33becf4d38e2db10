"""The JSON files of a checkpoint."""

import json
from pathlib import Path
from typing import Any

from worker.inference.errors import CheckpointError


def read_object(file: Path) -> dict[str, Any]:
    """The object that a file holds, empty where there is no such file.

    Raises:
        CheckpointError: It may not be read, or holds anything else.
    """
    try:
        found = json.loads(file.read_text("utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except OSError as error:
        raise unreadable(file, error) from error
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{file}: is not readable JSON; fetch it again.") from error
    if not isinstance(found, dict):
        raise CheckpointError(f"{file}: a JSON object is expected; fetch it again.")
    return found


def unreadable(file: Path, error: OSError) -> CheckpointError:
    """The error for a file that this user may not read."""
    return CheckpointError(f"{file}: cannot be read ({error.strerror}); correct the rights on it.")
