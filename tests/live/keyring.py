"""A keys file, changed as its operator changes it, and whether a gateway has noticed."""

import os
import subprocess
import sys
import time
from pathlib import Path

import httpx

from tests.live.servers import PLAIN, ROOT

WAIT_S = 30.0


class Keyring:
    """``file``: for GATEWAY_API_KEYS_FILE; made with the first key, if it is not there."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def add(self, name: str, *more: str) -> str:
        """The key. ``more``: words for ``python -m app keys add``."""
        return self._run("add", name, *more)

    def rotate(self, key: str) -> str:
        """The key that takes its place, of the same caller."""
        return self._run("rotate", _id(key))

    def revoke(self, key: str) -> None:
        self._run("revoke", _id(key))

    def _run(self, *words: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "app", "keys", *words, "--file", str(self.file)],
            check=True,
            timeout=60,
            capture_output=True,
            text=True,
            cwd=self.file.parent,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
        return done.stdout.strip()


def noticed(url: str, key: str, status: int = 200) -> None:
    """Wait until the gateway there answers ``status`` to who shows ``key``."""
    shown = {"Authorization": f"Bearer {key}"}
    deadline = time.monotonic() + WAIT_S
    while (got := httpx.get(f"{url}/session", headers=shown, **PLAIN).status_code) != status:
        assert time.monotonic() < deadline, f"still {got}, not {status}"
        time.sleep(0.1)  # a poll of another process, bounded above; failed tries are counted


def _id(key: str) -> str:
    return key.split("_")[1]
