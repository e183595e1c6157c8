"""A Redis of our own for tests: Debian's server in a temporary directory.

The server that Debian's package starts is not ours: nothing here looks at it.
"""

import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import redis

BOUND_S = 30.0


class RedisServer:
    """Listens on 127.0.0.1 on a free port, the same one after a restart, and on a socket in its
    directory. ``options``: of the server, by name."""

    def __init__(self, **options: str) -> None:
        program = shutil.which("redis-server")
        assert program, "redis-server is not installed: make test installs it"
        self._program = program
        self.home = Path(tempfile.mkdtemp(prefix="redis-"))
        with socket.create_server(("127.0.0.1", 0)) as probe:
            self.port: int = probe.getsockname()[1]
        self.url = f"redis://127.0.0.1:{self.port}"
        self._options = options
        self._server: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        settings = {
            "bind": "127.0.0.1",
            "port": str(self.port),
            "unixsocket": "socket",
            "dir": str(self.home),
            "save": "",
            **self._options,
        }
        arguments = [word for name, value in settings.items() for word in (f"--{name}", value)]
        with (self.home / "log").open("ab") as log:
            self._server = subprocess.Popen([self._program, *arguments], stdout=log, stderr=log)
        deadline = time.monotonic() + BOUND_S
        while not self._answers():
            text = (self.home / "log").read_text()
            assert self._server.poll() is None, text
            assert time.monotonic() < deadline, text
            time.sleep(0.02)  # a poll of another process, bounded above

    def set(self, option: str, value: str) -> None:
        """From the next start on."""
        self._options[option] = value

    def stop(self, *, keep: bool) -> None:
        """As a shutdown of the machine does. ``keep``: the data is there at the next start."""
        with self.client() as client:
            client.shutdown(save=keep, nosave=not keep)
        if not keep:
            (self.home / "dump.rdb").unlink(missing_ok=True)
        self._wait()

    def kill(self) -> None:
        """What was not saved is lost."""
        assert self._server is not None
        self._server.kill()
        self._wait()

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """The server takes connections, and everything in it stands still."""
        assert self._server is not None
        self._server.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self._server.send_signal(signal.SIGCONT)

    def flush(self) -> None:
        with self.client() as client:
            client.flushall()

    def client(self) -> redis.Redis:
        """To look and to do damage with. The caller closes it."""
        password = self._options.get("requirepass")
        return redis.Redis.from_url(self.url, password=password, socket_timeout=BOUND_S)

    def remove(self) -> None:
        if self._server is not None:
            self.kill()
        shutil.rmtree(self.home)

    def _wait(self) -> None:
        assert self._server is not None
        self._server.wait(BOUND_S)
        self._server = None

    def _answers(self) -> bool:
        try:
            with self.client() as client:
                return bool(client.ping())
        except redis.ConnectionError:  # not listening yet, or loading its data
            return False


@contextmanager
def running_redis(**options: str) -> Iterator[RedisServer]:
    server = RedisServer(**options)
    try:
        server.start()
        yield server
    finally:
        server.remove()
