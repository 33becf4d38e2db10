"""kbert as a child process, for tests that kill it."""

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from worker.settings import Settings


class KbertProcess:
    """``kbert run`` with the settings of a test."""

    def __init__(
        self,
        arguments: list[str],
        settings: Settings,
        log: Path,
        module: str = "worker",
        cwd: Path | None = None,
        **environment: str,
    ) -> None:
        self.log = log
        env = {name: value for name, value in os.environ.items() if not name.startswith("KBERT_")}
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-m", module, *arguments],
                cwd=cwd,
                env=env | environment_of(settings) | environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )

    @property
    def pid(self) -> int:
        """Process id."""
        return self._process.pid

    def send(self, number: signal.Signals) -> None:
        """Send a signal."""
        self._process.send_signal(number)

    def wait(self, timeout: float = 30.0) -> int:
        """Exit status."""
        return self._process.wait(timeout)

    def resident_bytes(self) -> int:
        """Memory that the process has in RAM."""
        pages = int(Path(f"/proc/{self.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")

    @property
    def running(self) -> bool:
        """Whether it has not ended."""
        return self._process.poll() is None

    def says(self, event: str) -> bool:
        """Whether the log has this event; an ended process fails the test with its log."""
        text = self.log.read_text(errors="replace")
        if event in text:
            return True
        assert self.running, f"kbert ended with {self._process.returncode}:\n{text[-3000:]}"
        return False


@contextlib.contextmanager
def kbert(
    arguments: list[str],
    settings: Settings,
    log: Path,
    module: str = "worker",
    cwd: Path | None = None,
    **environment: str,
) -> Iterator[KbertProcess]:
    """A process that is gone when the block ends; ``module`` may be a test's own entry."""
    process = KbertProcess(arguments, settings, log, module, cwd, **environment)
    try:
        yield process
    finally:
        if process.running:
            process.send(signal.SIGCONT)
            process.send(signal.SIGKILL)
            process.wait()


def environment_of(settings: Settings) -> dict[str, str]:
    """The settings as environment variables."""
    variables = {"KBERT_LOG__FORMAT": "json"}
    for section, values in settings.model_dump(exclude_unset=True).items():
        if not isinstance(values, dict):
            variables[f"KBERT_{section}".upper()] = str(values)
            continue
        for name, value in values.items():
            plain = value.get_secret_value() if hasattr(value, "get_secret_value") else value
            variables[f"KBERT_{section}__{name}".upper()] = str(plain)
    return variables
