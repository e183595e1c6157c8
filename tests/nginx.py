"""The load balancer of the compose file for tests: Debian's nginx with deploy/nginx.conf itself.

Only what is of the place differs, and is made from the files that the container has: addresses of
the gateways, ports, a certificate.
"""

import asyncio
import re
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

DEPLOY = Path(__file__).parent.parent / "deploy"
BOUND_S = 30.0


class Nginx:
    """Listens on 127.0.0.1 on two free ports, in front of gateways on ``ports`` there."""

    def __init__(self, ports: Sequence[int]) -> None:
        program = shutil.which("nginx", path="/usr/sbin:/usr/bin:/usr/local/sbin:/usr/local/bin")
        assert program, "nginx is not installed: make test installs it"
        self._program = program
        self._home = Path(tempfile.mkdtemp(prefix="nginx-"))
        # nginx as root gives its workers to nobody, who must get to their temporary files.
        self._home.chmod(0o755)
        self.port, self.tls_port = _free_ports(2)
        self.url = f"http://127.0.0.1:{self.port}"
        self.tls_url = f"https://localhost:{self.tls_port}"
        self.certificate = self._home / "made/nginx/certificate.pem"
        self._server: subprocess.Popen[bytes] | None = None
        (self._home / "nginx.conf").symlink_to(DEPLOY / "nginx.conf")
        self.balance(ports)
        self._make_certificate()
        self._write_listen()

    @property
    def said(self) -> str:
        """Its two logs."""
        return (self._home / "log").read_text()

    async def logs(self, text: str) -> None:
        """Returns when the logs have ``text``: a request gets its line after its answer.

        Raises AssertionError when that does not come.
        """
        deadline = time.monotonic() + BOUND_S
        while text not in self.said:
            assert time.monotonic() < deadline, f"no {text!r} in {self.said}"
            await asyncio.sleep(0.02)  # a poll of another process, bounded above

    @property
    def workers(self) -> set[int]:
        """Process ids, those that end after a reload among them."""
        assert self._server is not None
        pid = self._server.pid
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        return {int(child) for child in children}

    def balance(self, ports: Sequence[int]) -> None:
        """Name the gateways; heard with the next start or ``reload``."""
        text = (DEPLOY / "upstreams.conf").read_text()
        # Their addresses are known here, and Debian's nginx cannot ask for them again.
        text = re.sub(r"^resolver .*\n", "", text, flags=re.MULTILINE)
        lines = re.compile(
            r"^( *server) gateway1:8000 resolve( .*\n)(?: *server .*\n)*", re.MULTILINE
        )
        made, count = lines.subn(
            lambda found: "".join(f"{found[1]} 127.0.0.1:{port}{found[2]}" for port in ports), text
        )
        assert count == 2, "upstreams.conf has another form than this knows"
        (self._home / "upstreams.conf").write_text(made)

    def start(self) -> None:
        with (self._home / "log").open("ab") as log:
            self._server = subprocess.Popen(
                [*self._command(), "-e", "stderr"], stdout=log, stderr=log, cwd=self._home
            )
        deadline = time.monotonic() + BOUND_S
        while not self._listens():
            assert self._server.poll() is None, self.said
            assert time.monotonic() < deadline, self.said
            time.sleep(0.02)  # a poll of another process, bounded above

    def reload(self) -> None:
        """New workers with the files as they are now; returns when the first of them runs. The old
        ones end with their last connection."""
        assert self._server is not None
        before = self.workers
        self._server.send_signal(signal.SIGHUP)
        deadline = time.monotonic() + BOUND_S
        while self.workers <= before:
            assert time.monotonic() < deadline, self.said
            time.sleep(0.02)  # a poll of another process, bounded above

    def stop(self) -> None:
        if self._server is not None:
            self._server.send_signal(signal.SIGTERM)
            self._server.wait(BOUND_S)
            self._server = None

    def remove(self) -> None:
        self.stop()
        shutil.rmtree(self._home)

    def trust(self) -> ssl.SSLContext:
        """For a client that believes its certificate and no other."""
        return ssl.create_default_context(cafile=str(self.certificate))

    def _make_certificate(self) -> None:
        """As the service ``setup`` of the compose file does."""
        for service in ("gateway", "nginx", "redis", "postgres"):
            (self._home / "made" / service).mkdir(parents=True)
        arguments = [DEPLOY / "make_secrets.py", self._home / "given", self._home / "made"]
        subprocess.run([sys.executable, *arguments], check=True, timeout=BOUND_S)

    def _write_listen(self) -> None:
        text = (DEPLOY / "listen.conf").read_text()
        for there, here in (
            ("listen 8000;", f"listen 127.0.0.1:{self.port};"),
            # nginx 1.22 has no other way to say it; 1.25.1 and newer call it deprecated.
            ("listen 8443 ssl;\nhttp2 on;", f"listen 127.0.0.1:{self.tls_port} ssl http2;"),
            ("/run/secrets/", f"{self._home}/made/nginx/"),
        ):
            assert there in text, f"listen.conf has another form than this knows: no {there}"
            text = text.replace(there, here)
        (self._home / "listen.conf").write_text(text)

    def _command(self) -> list[str]:
        return [self._program, "-p", f"{self._home}/", "-c", f"{self._home}/nginx.conf"]

    def _listens(self) -> bool:
        try:
            socket.create_connection(("127.0.0.1", self.tls_port), BOUND_S).close()
        except ConnectionRefusedError:
            return False
        return True


@contextmanager
def running_nginx(ports: Sequence[int]) -> Iterator[Nginx]:
    """In front of gateways that listen, or will listen, on ``ports`` of 127.0.0.1."""
    nginx = Nginx(ports)
    try:
        nginx.start()
        yield nginx
    finally:
        nginx.remove()


def _free_ports(count: int) -> list[int]:
    probes = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    try:
        return [int(probe.getsockname()[1]) for probe in probes]
    finally:
        for probe in probes:
            probe.close()
