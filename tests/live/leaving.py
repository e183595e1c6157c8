"""How clients leave, and what the upstream and the kernel know of it afterwards."""

import os
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from tests.live.reading import Stream, client, stats, until
from tests.live.servers import Gateway, SimulatorProcess

GRACE_S = 0.5
# The contract's: after the grace is over.
BOUND_S = 0.5
# From one process to the next: a closed socket must be noticed, also on a free machine.
ALLOWANCE_S = 0.2
ENDLESS = "tokens,n=10000,interval=0.05"

LEAVE: dict[str, Callable[[Stream], None]] = {"RST": Stream.reset, "FIN": Stream.close}
# Script, and how many events are read of the answer; None: not even its head.
MOMENTS: dict[str, tuple[str, int | None]] = {
    "before the upstream's head": ("tokens,head=60", 1),
    "before the first token": ("silent", 1),
    "before the head is read": ("silent", None),
    "mid-answer": (ENDLESS, 4),
    "mid-answer without having read": (ENDLESS, None),
}


async def ended(upstream: SimulatorProcess, prompt: str) -> list[dict[str, Any]]:
    """The upstream's calls for that prompt, once all of them have ended."""
    seen = await until(
        lambda: stats(upstream, prompt), lambda seen: seen["open"] == 0, "the end of the calls"
    )
    calls: list[dict[str, Any]] = seen["calls"]
    return calls


async def calling(upstream: SimulatorProcess, prompt: str, count: int = 1) -> None:
    """Wait until the upstream has begun to answer."""
    await until(
        lambda: stats(upstream, prompt), lambda seen: seen["open"] == count, "the upstream calls"
    )


class Leaving:
    """From just before clients leave. The bound is on what the gateway does, so the time that it,
    the upstream and we stood ready to run but got no CPU (Linux: /proc/<pid>/schedstat, of the
    main thread, where the loops run) does not count: others may use the machine as well."""

    def __init__(self, gateway: Gateway, upstream: SimulatorProcess) -> None:
        self._pids = (gateway.pid, upstream.pid, os.getpid())
        self._waited_s = self._waited()
        self.at = time.time()

    def assert_in_time(self, call: dict[str, Any], grace_s: float) -> None:
        """Call once the upstream's call has ended."""
        assert call["outcome"] == "aborted"
        took = call["ended_at"] - self.at
        waited = self._waited() - self._waited_s
        bound = grace_s + BOUND_S + ALLOWANCE_S + waited
        told = f"the call ended after {took:.3f} s; without a CPU for {waited:.3f} s"
        assert grace_s - 0.01 <= took <= bound, told

    def _waited(self) -> float:
        files = (Path(f"/proc/{pid}/schedstat") for pid in self._pids)
        return sum(int(file.read_text().split()[1]) for file in files) / 1e9


async def status_of(gateway: Gateway, run_id: str) -> str:
    async with client(gateway.url) as http:
        return str((await http.get(f"/runs/{run_id}")).json()["status"])


async def ending_of(gateway: Gateway, run_id: str) -> str:
    return await until(lambda: status_of(gateway, run_id), lambda seen: seen != "running", "an end")


def open_files(pid: int, upstream_port: int) -> tuple[int, int]:
    """What the process holds open: all files but connections to the upstream, and those. Without
    SQLite's, of whose connections there may be one more for each thing that is being stored."""
    links = []
    for link in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):  # closed while we looked
            links.append(str(link.readlink()))
    links = [link for link in links if not link.endswith((".db", ".db-wal", ".db-shm"))]
    remote = f":{upstream_port:04X}"
    rows = [line.split() for line in Path(f"/proc/{pid}/net/tcp").read_text().splitlines()]
    upstream = {f"socket:[{row[9]}]" for row in rows if row[2].endswith(remote)}
    calls = sum(link in upstream for link in links)
    return len(links) - calls, calls
