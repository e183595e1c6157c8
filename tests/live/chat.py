"""``python -m app chat`` as a process, and what its output goes to."""

import fcntl
import os
import re
import signal
import struct
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Callable
from typing import Self

from tests.live.servers import ROOT, STOP_S, SimulatorProcess

_TOLD = re.compile(r"^to go on: --conversation=(\S+)\n\Z", re.MULTILINE)


def until(condition: Callable[[], object], what: str, seconds: float = 20.0) -> None:
    """Poll another process, bounded."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"it never came: {what}"
        time.sleep(0.02)


class Chat:
    """The client. ``stdout``: where to, None collects it in ``out``; stderr is in ``err``.
    ``conversation``: the id to go on with."""

    def __init__(
        self,
        text: str,
        url: str,
        *,
        stdout: int | None = None,
        conversation: str | None = None,
        **env: str,
    ) -> None:
        clean = {k: v for k, v in os.environ.items() if "proxy" not in k.lower()}
        more = [f"--conversation={conversation}"] if conversation else []
        self.process = subprocess.Popen(
            [sys.executable, "-m", "app", "chat", text, "--url", url, *more],
            env=clean | {"PYTHONPATH": str(ROOT)} | env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE if stdout is None else stdout,
            stderr=subprocess.PIPE,
        )
        self.out, self.err = bytearray(), bytearray()
        self._readers = [threading.Thread(target=self._read, args=("stderr",), daemon=True)]
        if stdout is None:
            self._readers.append(threading.Thread(target=self._read, args=("stdout",), daemon=True))
        for reader in self._readers:
            reader.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.wait()

    @property
    def words(self) -> str:
        """What stderr got, without the line that tells the conversation."""
        return _TOLD.sub("", self.err.decode())

    @property
    def conversation(self) -> str:
        """The id that the last line told."""
        (told,) = _TOLD.findall(self.err.decode())
        return str(told)

    def shows(self, text: str) -> None:
        until(lambda: text.encode() in self.out, f"{text!r} on stdout; stderr: {self.words}")

    def says(self, text: str) -> None:
        until(lambda: text in self.words, f"{text!r} on stderr")

    def interrupt(self) -> None:
        self.process.send_signal(signal.SIGINT)

    def wait(self, seconds: float = STOP_S) -> int:
        """The exit code; all output has been read."""
        code = self.process.wait(seconds)
        for reader in self._readers:
            reader.join(5)
        return code

    def _read(self, name: str) -> None:
        kept = self.out if name == "stdout" else self.err
        with getattr(self.process, name) as pipe:
            while data := pipe.read1(65536):
                kept.extend(data)


class Mark(str):
    """Stands in a question, so that the upstream's view of it can be told from the others."""

    simulator: SimulatorProcess

    def calls(self) -> int:
        started: int = self.simulator.stats(self)["started"]
        return started

    def is_asked(self) -> bool:
        return bool(self.simulator.stats(self)["open"])

    def is_stopped(self) -> bool:
        """The upstream call was aborted, and there was no other."""
        stats = self.simulator.stats(self)
        return (stats["started"], stats["aborted"], stats["open"]) == (1, 1, 0)


def read_terminal(master: int) -> bytes:
    """What a pseudo-terminal showed, empty when nobody writes to it any more."""
    try:
        return os.read(master, 65536)
    except OSError:
        return b""


def small_pipe() -> tuple[int, int, Callable[[], bool]]:
    """Its two ends, and whether it is as good as full."""
    output, given = os.pipe()
    capacity = fcntl.fcntl(given, fcntl.F_SETPIPE_SZ, 4096)

    def is_full() -> bool:
        waiting: int = struct.unpack("i", fcntl.ioctl(output, termios.FIONREAD, bytes(4)))[0]
        return waiting > capacity - 20

    return output, given, is_full
