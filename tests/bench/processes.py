"""Servers of the benchmark: each on a core of its own and on a free port, ended by its id."""

import contextlib
import os
import signal
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.bench import procstat

STOP_S = 6.0  # after SIGTERM; then SIGKILL
_POLL_S = 0.005
# Settings of somebody's own gateway, interpreter or tracing would be measured with it.
_NOT_INHERITED = ("GATEWAY_", "OPENAI_", "PYTHON", "LANGCHAIN_", "LANGSMITH_", "LITELLM_")


class BenchError(Exception):
    """A target cannot be measured; the text says why. The others still can."""


class Process:
    """A server and what it starts, in a process group of its own. What it says goes to ``log``.

    ``core``: None leaves it to the scheduler.
    """

    def __init__(
        self,
        command: Sequence[str],
        log: Path,
        *,
        core: int | None,
        cwd: Path,
        env: Mapping[str, str],
    ) -> None:
        clean = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(_NOT_INHERITED) and "proxy" not in name.lower()
        }
        self.log = log
        self.started_at = time.monotonic()
        with log.open("ab") as output:
            try:
                self._popen = subprocess.Popen(
                    command,
                    cwd=cwd,
                    env={**clean, **env},
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,  # a group to end; Ctrl-C reaches only us
                    preexec_fn=None if core is None else lambda: os.sched_setaffinity(0, {core}),
                )
            except FileNotFoundError:
                raise BenchError(f"{command[0]} is not installed") from None

    @property
    def pid(self) -> int:
        return self._popen.pid

    def pids(self) -> list[int]:
        return procstat.tree(self.pid)

    def wait_for_port(self, port: int, limit_s: float) -> float:
        """Seconds from the start until somebody listened."""
        while time.monotonic() < self.started_at + limit_s:
            self.check()
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
                return time.monotonic() - self.started_at
            time.sleep(_POLL_S)
        raise BenchError(f"nothing listened within {limit_s:g} s{self.last_words()}")

    def check(self) -> None:
        if (code := self._popen.poll()) is not None:
            raise BenchError(f"ended with code {code}{self.last_words()}")

    def last_words(self) -> str:
        lines = self.log.read_text(errors="replace").split("\n")
        return ": " + " ".join(line.strip() for line in lines if line.strip())[-300:]

    def stop(self) -> None:
        try:
            self._signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._popen.wait(STOP_S)
        finally:  # what did not end, and children that outlive their parent
            self._signal(signal.SIGKILL)
            self._popen.wait()

    def _signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):  # the whole group has ended
            os.killpg(self.pid, number)


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port
