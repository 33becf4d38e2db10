"""A small real checkpoint for worker processes."""

from pathlib import Path

import pytest

from tests.checkpoints import SMALL, random_state, write_checkpoint


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights: the faults are about messages, not about what the heads say."""
    return write_checkpoint(tmp_path_factory.mktemp("model") / "small", random_state(SMALL))
