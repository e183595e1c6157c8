"""Real processes for live tests: the gateway as a user starts it, and the simulator upstream.

Each listens on 127.0.0.1 on a free port that it picks itself, and is ended by its process id.
"""

import os
import re
import signal
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

ROOT = Path(__file__).parents[2]
START_S = 60  # three test processes and their gateways share two cores
STOP_S = 40.0
# Given to httpx, which else reads all certificates of the machine for each request.
_NO_TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
# For httpx: no proxy, and no certificates, which take 60 ms to load and which nobody here needs.
PLAIN: dict[str, Any] = {"trust_env": False, "verify": False}


class Process:
    """``python -m module``; its output is kept in ``lines``."""

    def __init__(self, *arguments: str, env: dict[str, str], cwd: Path) -> None:
        clean = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("GATEWAY_", "OPENAI_")) and "proxy" not in name.lower()
        }
        self._process = subprocess.Popen(
            [sys.executable, "-m", *arguments],
            cwd=cwd,  # away from the tree, where a developer may keep a .env
            env=clean | {"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"} | env,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.lines: list[str] = []
        self._grew = threading.Condition()
        self._ended = False
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    @property
    def pid(self) -> int:
        return self._process.pid

    def find(self, pattern: str) -> str:
        """Wait for a line that matches and answer its first group."""
        deadline = time.monotonic() + START_S
        with self._grew:
            while True:
                for line in self.lines:
                    if match := re.search(pattern, line):
                        return match[1]
                left = deadline - time.monotonic()
                if self._ended or left <= 0:
                    raise AssertionError(f"no line matches {pattern!r} in: {self.output}")
                self._grew.wait(left)

    @property
    def output(self) -> str:
        return "".join(self.lines)

    def signal(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def wait(self, seconds: float = STOP_S) -> int:
        """The exit code."""
        code = self._process.wait(seconds)
        self._reader.join(5)
        return code

    def stop(self) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self.wait()
        if self._process.stdout:
            self._process.stdout.close()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            with self._grew:
                self.lines.append(line)
                self._grew.notify_all()
        with self._grew:
            self._ended = True
            self._grew.notify_all()


class Gateway(Process):
    """``settings`` without their prefix, in small letters: ``heartbeat_seconds=0.2``.

    ``upstream``: the base URL to ask, None for the simulator inside the process.
    """

    def __init__(self, cwd: Path, upstream: str | None, **settings: Any) -> None:
        env = {f"GATEWAY_{name.upper()}": str(value) for name, value in settings.items()}
        env.setdefault("GATEWAY_PORT", "0")
        if upstream is not None:
            env["OPENAI_BASE_URL"] = upstream
        super().__init__("app", env=env, cwd=cwd)
        self.url = self.find(r"^page\s+(http://\S+?)/$")

    def wait_until_ready(self) -> None:
        deadline = time.monotonic() + START_S
        with httpx.Client(base_url=self.url, **PLAIN) as client:
            while client.get("/ready").status_code != 200:
                if time.monotonic() > deadline:
                    raise AssertionError(f"the gateway is not ready: {self.output}")
                time.sleep(0.02)  # a poll of another process, bounded above


class SimulatorProcess(Process):
    def __init__(self, cwd: Path) -> None:
        super().__init__("app.simulator", "--port", "0", env={}, cwd=cwd)
        self.url = self.find(r"(http://\S+/v1)\b")

    def stats(self, contains: str = "") -> dict[str, Any]:
        """What the upstream saw of the calls whose prompt or model holds ``contains``."""
        stats: dict[str, Any] = httpx.get(
            self.url.removesuffix("/v1") + "/stats", params={"contains": contains}, **PLAIN
        ).json()
        return stats


@contextmanager
def running_gateway(cwd: Path, upstream: str | None, **settings: Any) -> Iterator[Gateway]:
    gateway = Gateway(cwd, upstream, **settings)
    try:
        gateway.wait_until_ready()
        yield gateway
    finally:
        gateway.stop()
