"""One worker: a child process, as its parent sees it, and the words that the two exchange.

They talk over a socket pair, one byte a word. Words rather than signals, because a terminal and a
service manager signal parent and children at once, and a second signal means "at once". A worker
whose parent is gone reads the end of the pair, and drains.
"""

import asyncio
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress

# What a worker says.
READY = b"r"  # it serves
LEAVING = b"l"  # it was told to end, and does so once it is relieved
# What its parent says.
RELIEVED = b"s"  # a successor serves: accept nothing more, and drain
DRAIN = b"d"  # there is no successor: drain, and answer until the end
NOW = b"n"  # end at once

START_S = 60.0  # for a worker to serve; it takes one or two, on a busy machine ten
SOON_S = 10.0  # a worker that ends sooner than this after its start was no good


class Worker:
    """A child process, from its start on, and what it has said."""

    def __init__(self, listener: socket.socket) -> None:
        """Starts it. Raises ``OSError``."""
        self._channel, theirs = socket.socketpair()
        self._channel.setblocking(False)
        passed = (listener.fileno(), theirs.fileno())
        try:
            with theirs:
                self._process = subprocess.Popen(  # noqa: S603  # nosec B603  # ourselves
                    [sys.executable, "-m", "app", "serve", "--as-worker", "{},{}".format(*passed)],
                    stdin=subprocess.DEVNULL,
                    pass_fds=passed,
                )
        except OSError:
            self._channel.close()
            raise
        self._began = time.monotonic()
        self.pid = self._process.pid
        self.serves = False
        self.leaving = asyncio.Event()  # it has ended, or asks to be relieved
        self.ended = asyncio.Event()
        self._decided = asyncio.Event()  # it serves, or never will
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._channel, self._hear)

    @property
    def code(self) -> int:
        """The exit code; below 0 the signal that ended it. Once it has ended."""
        return self._process.returncode or 0

    @property
    def ended_soon(self) -> bool:
        return self.ended.is_set() and time.monotonic() - self._began < SOON_S

    async def comes_up(self) -> bool:
        """Whether it serves; waits until that is known, ``START_S`` at most."""
        with suppress(TimeoutError):
            async with asyncio.timeout(START_S):
                await self._decided.wait()
        if not self.serves:
            self.kill()
        return self.serves

    def tell(self, word: bytes) -> None:
        with suppress(OSError):  # it has ended
            self._channel.send(word)

    def end(self) -> None:
        """Drain; one that does not serve yet ends at once."""
        self.tell(DRAIN)
        if not self.serves:
            self._process.terminate()

    def kill(self) -> None:
        self._process.kill()  # does nothing once it has ended

    def look(self) -> None:
        """Some child has ended: this one?"""
        if not self.ended.is_set() and self._process.poll() is not None:
            self._loop.remove_reader(self._channel)
            self._channel.close()
            for event in (self._decided, self.leaving, self.ended):
                event.set()

    def __str__(self) -> str:
        if not self.ended.is_set():
            return f"worker {self.pid}"
        if self.code < 0:
            return f"worker {self.pid}, ended by {signal.Signals(-self.code).name},"
        return f"worker {self.pid}, ended with exit code {self.code},"

    def _hear(self) -> None:
        try:
            words = self._channel.recv(64)
        except OSError:
            words = b""
        if not words:  # its end; SIGCHLD tells
            self._loop.remove_reader(self._channel)
        if READY in words:
            self.serves = True
            self._decided.set()
        if LEAVING in words:
            self.leaving.set()
