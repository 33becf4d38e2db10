"""One child process whose life ends with ours, and whose output is kept."""

import asyncio
import atexit
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path

_TETHER = Path(__file__).with_name("tether.py")


class ChildProcess:
    """A process that dies with its parent: on Linux also after kill -9 of the parent.

    On macOS, which has no parent-death signal, it is killed when the interpreter
    exits normally. It runs in a session of its own, so that Ctrl-C on a terminal
    reaches the parent alone, which can then drain before it stops its servers.
    """

    def __init__(self, command: Sequence[str], log: Path, env: Mapping[str, str] | None = None) -> None:
        """Start ``command`` (its first item an absolute path), stdout and stderr appended to ``log``.

        Raises:
            OSError: the command cannot be executed.
        """
        self.log = log
        self._owner = os.getpid()
        self._exited = threading.Event()
        started: Future[subprocess.Popen[bytes]] = Future()
        # The parent-death signal comes when the *thread* that forked ends, so a thread that waits for
        # the child forks it: a child of a pool thread was killed whenever the pool shrank.
        threading.Thread(
            target=self._keep, args=(list(command), env, started), name="child-keeper", daemon=True
        ).start()
        self._process = started.result()
        atexit.register(self.kill)

    def _keep(
        self,
        command: list[str],
        env: Mapping[str, str] | None,
        started: "Future[subprocess.Popen[bytes]]",
    ) -> None:
        if sys.platform == "linux":
            command = [sys.executable, "-I", "-S", str(_TETHER), str(os.getpid()), *command]
        try:
            with self.log.open("ab") as log:
                process = subprocess.Popen(  # noqa: S603 - resolved paths, no shell
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    env=env,
                    start_new_session=True,
                )
        except OSError as error:
            started.set_exception(error)
            return
        started.set_result(process)
        process.wait()
        self._exited.set()

    @property
    def pid(self) -> int:
        """Process id."""
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether the process has not ended; a frozen one is running."""
        return not self._exited.is_set()

    @property
    def exit_code(self) -> int | None:
        """Exit status, negative for a signal; None while it runs."""
        return self._process.returncode if self._exited.is_set() else None

    def signal(self, number: signal.Signals) -> None:
        """Send a signal; nothing happens where the process has ended."""
        if self.running and os.getpid() == self._owner:  # a fork of ours inherits the object, not the child
            self._process.send_signal(number)

    def kill(self) -> None:
        """SIGKILL, and wait until it is gone (at most 5 s)."""
        atexit.unregister(self.kill)
        self.signal(signal.SIGKILL)
        if os.getpid() == self._owner:
            self._exited.wait(5.0)

    async def stop(self, grace: float = 5.0) -> None:
        """SIGTERM, and SIGKILL after ``grace`` seconds; also wakes a frozen process."""
        self.signal(signal.SIGTERM)
        self.signal(signal.SIGCONT)
        await self.wait(grace)
        self.kill()

    async def wait(self, seconds: float) -> bool:
        """Wait up to ``seconds`` for its end; whether it has ended."""
        return await asyncio.to_thread(self._exited.wait, seconds)

    def log_tail(self, lines: int = 10) -> str:
        """The last lines of what it wrote."""
        try:
            text = self.log.read_bytes()[-8_192:].decode("utf-8", errors="replace")
        except FileNotFoundError:
            return ""
        return "\n".join(text.splitlines()[-lines:])
