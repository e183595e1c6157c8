"""A PostgreSQL of our own for tests: Debian's programs, a new cluster in a temporary directory.

The cluster that Debian's package makes is not ours: nothing here looks at it.
"""

import os
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

BOUND_S = 60.0
_NEWEST = max(
    Path("/usr/lib/postgresql").glob("*/bin/postgres"),
    key=lambda path: int(path.parts[-3]),
    default=None,
)


class Postgres:
    """Listens on 127.0.0.1 on a free port, the same one after a restart. Trusts everybody."""

    def __init__(self) -> None:
        assert _NEWEST, "PostgreSQL's server is not installed: make test installs it"
        self._bin = _NEWEST.parent
        self._home = Path(tempfile.mkdtemp(prefix="postgres-"))
        self._run: dict[str, Any] = {"cwd": self._home, "env": {"PATH": os.defpath}}
        if os.getuid() == 0:  # PostgreSQL refuses to run as root
            shutil.chown(self._home, "postgres", "postgres")
            self._run |= {"user": "postgres", "group": "postgres", "extra_groups": []}
        with socket.create_server(("127.0.0.1", 0)) as probe:
            self.port: int = probe.getsockname()[1]
        self._server: subprocess.Popen[bytes] | None = None
        self._call("initdb", "--no-sync", "--auth=trust", "--username=gateway", "--pgdata=data")

    def start(self) -> None:
        with (self._home / "log").open("ab") as log:
            self._server = subprocess.Popen(
                [self._bin / "postgres", *self._options()], stdout=log, stderr=log, **self._run
            )
        deadline = time.monotonic() + BOUND_S
        while self._try("pg_isready", *self._at("postgres")).returncode != 0:
            log_text = (self._home / "log").read_text()
            assert self._server.poll() is None, log_text
            assert time.monotonic() < deadline, log_text
            time.sleep(0.05)  # a poll of another process, bounded above

    def stop(self) -> None:
        """As a shutdown of the machine does: connections are cut, what is committed stays."""
        if self._server is not None:
            self._server.send_signal(signal.SIGINT)
            self._server.wait(BOUND_S)
            self._server = None

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """The server takes connections, and everything in it stands still."""
        assert self._server is not None
        pids = [self._server.pid, *_children(self._server.pid)]
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            for pid in pids:
                os.kill(pid, signal.SIGCONT)

    def database(self) -> str:
        """A new, empty database: its address."""
        name = f"test_{secrets.token_hex(8)}"
        self._call("psql", *self._at("postgres"), "--quiet", f"--command=CREATE DATABASE {name}")
        return f"postgresql+asyncpg://gateway@127.0.0.1:{self.port}/{name}"

    def remove(self) -> None:
        if self._server is not None:
            self._server.send_signal(signal.SIGQUIT)  # nothing of it is to be kept
            self._server.wait(BOUND_S)
        shutil.rmtree(self._home)

    def _options(self) -> list[str]:
        settings = {
            "listen_addresses": "127.0.0.1",
            "port": self.port,
            "unix_socket_directories": "",
            "fsync": "off",
            "synchronous_commit": "off",
            "max_connections": 200,
        }
        return ["-D", "data", *(f"--{name}={value}" for name, value in settings.items())]

    def _at(self, database: str) -> list[str]:
        where = ["--host=127.0.0.1", f"--port={self.port}"]
        return [*where, "--username=gateway", f"--dbname={database}"]

    def _try(self, program: str, *arguments: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [str(self._bin / program), *arguments],
            check=False,
            timeout=BOUND_S,
            capture_output=True,
            text=True,
            **self._run,
        )

    def _call(self, program: str, *arguments: str) -> None:
        done = self._try(program, *arguments)
        assert done.returncode == 0, f"{program}: {done.stderr}"


@contextmanager
def running_postgres() -> Iterator[Postgres]:
    postgres = Postgres()
    try:
        postgres.start()
        yield postgres
    finally:
        postgres.remove()


def _children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
