"""Several workers that cannot start, and several workers on a terminal."""

import asyncio
import os
import re
import select
import subprocess
import sys
from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path

import httpx
import pytest

from app.listening import listen_together
from app.simulator.scripts import expected_text
from tests.live.asking import Answer, marker
from tests.live.servers import PLAIN
from tests.live.test_settings_refusals import environment, refusal
from tests.live.test_workers import SHORT, START_S, is_alive, workers
from tests.redis_server import RedisServer

pytestmark = pytest.mark.anyio

# A tool that the parent can load, and a worker cannot.
HALF_A_TOOL = """
import sys
from langchain_core.tools import tool

if "--as-worker" in sys.argv:
    raise RuntimeError

@tool
def half() -> str:
    "Half a tool."
    return "half"
"""


def two(redis_server: RedisServer, **settings: str) -> Mapping[str, str]:
    names = {f"GATEWAY_{name.upper()}": value for name, value in settings.items()}
    url = f"{redis_server.url}?prefix={marker()}"
    return {"GATEWAY_WORKERS": "2", "GATEWAY_REDIS_URL": url, "GATEWAY_PORT": "0", **names}


def test_a_port_that_another_gateways_workers_have_is_refused(
    redis_server: RedisServer, tmp_path: Path
) -> None:
    first, second = listen_together("127.0.0.1", 0, 2)
    with closing(first), closing(second):
        port = str(first.getsockname()[1])
        line = refusal("python -m app", two(redis_server, port=port), tmp_path)
    assert port in line
    assert "in use" in line


def test_a_setting_that_cannot_be_is_said_once(redis_server: RedisServer, tmp_path: Path) -> None:
    line = refusal("python -m app", two(redis_server, stall_timeout_seconds="never"), tmp_path)
    assert "GATEWAY_STALL_TIMEOUT_SECONDS" in line


def test_workers_that_cannot_start_end_the_parent_with_their_code(
    redis_server: RedisServer, tmp_path: Path
) -> None:
    (tmp_path / "halves.py").write_text(HALF_A_TOOL)
    ended = subprocess.run(
        [sys.executable, "-m", "app"],
        env=environment(two(redis_server, tools="halves:half")),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == 2
    assert ended.stdout == ""
    assert "GATEWAY_TOOLS" in ended.stderr
    assert "Traceback" not in ended.stderr


class Terminal:
    """A terminal with a gateway in its foreground."""

    def __init__(self, env: Mapping[str, str], cwd: Path) -> None:
        self._ours, theirs = os.openpty()
        self.gateway = subprocess.Popen(
            ["setsid", "--ctty", sys.executable, "-m", "app"],
            env=env, cwd=cwd, stdin=theirs, stdout=theirs, stderr=theirs,
        )  # fmt: skip
        os.close(theirs)

    def url(self) -> str:
        """Out of the first words."""
        said = ""
        while not (page := re.search(r"page\s+(http://\S+)/\s", said)):
            assert select.select([self._ours], [], [], START_S)[0], said
            said += os.read(self._ours, 1024).decode()
        return page[1]

    def interrupt(self) -> None:
        os.write(self._ours, b"\x03")  # Ctrl+C

    def close(self) -> None:
        if self._ours >= 0:
            os.close(self._ours)
        self._ours = -1


@pytest.mark.parametrize("leave", [Terminal.interrupt, Terminal.close])
async def test_what_a_terminal_signals_to_all_of_them_drains_them_once(
    redis_server: RedisServer, tmp_path: Path, leave: Callable[[Terminal], None]
) -> None:
    terminal = Terminal(environment(two(redis_server)), tmp_path)
    try:
        url = await asyncio.to_thread(terminal.url)
        pids = workers(terminal.gateway.pid)
        async with (
            asyncio.timeout(START_S),
            httpx.AsyncClient(base_url=url, timeout=START_S, **PLAIN) as http,
            http.stream("POST", "/chat", json={"text": SHORT}) as response,
        ):
            leave(terminal)
            answer = Answer(response.headers, await response.aread())
        assert answer.text == expected_text(SHORT)
        assert await asyncio.to_thread(terminal.gateway.wait, START_S) == 0
        assert not [pid for pid in pids if is_alive(pid)]
    finally:
        terminal.gateway.kill()
        terminal.close()
        terminal.gateway.wait(START_S)
