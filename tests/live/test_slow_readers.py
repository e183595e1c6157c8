"""A reader that is slow, frozen or gone never delays the run or other readers (contract section 5).

The one test waits for the real 30 s after which a frozen reader is cut.
"""

import asyncio
import hashlib
import re
import socket
import time
from collections.abc import Callable
from contextlib import ExitStack, closing
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from app.simulator.scripts import expected_text
from tests.live.asking import Answer, client, until
from tests.live.servers import Gateway

pytestmark = pytest.mark.anyio

MIB = 1024 * 1024
OTHERS = 20
FROZEN = 8  # so that a copy for each of them would show in the memory
# 7 MiB in 448 chunks, 10 ms apart: about five seconds in which all read what is being written.
SCRIPT = "sim:bulk,bytes=7340032,chunk=16384,interval=0.01"
OTHERS_S = 25.0  # within which the others have it all, on a busy machine too
CUT_AFTER_S = 30.0
LATE_S = 15.0  # how much later than that the cut may come on a machine that has much to do
SLOW_FOR_S = 36.0
SLOW_BYTES_PER_S = 2048
# The log keeps each text as event and as frame, once more in final: four times the answer.
LOG_BYTES = 4 * 7 * MIB
# final is one frame of 7 MiB, which each of the others holds in its write buffer for a moment;
# the allocator keeps some of it.
ALLOWANCE_BYTES = 60 * MIB


def rss(gateway: Gateway) -> int:
    status = Path(f"/proc/{gateway.pid}/status").read_text()
    match = re.search(r"VmRSS:\s+(\d+) kB", status)
    assert match
    return int(match[1]) * 1024


class SlowReader:
    """A connection with a small kernel buffer that asked for a run's events and took the head."""

    def __init__(self, gateway: Gateway, run_id: str) -> None:
        address = urlsplit(gateway.url)
        self.socket = socket.socket()
        # As a phone's: with loopback's 64 KiB segments and megabytes of buffer the kernel would
        # take everything, or tell nobody that something was taken.
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        self.socket.settimeout(30)
        self.socket.connect((address.hostname, address.port))
        self._ends = (address.port or 80, self.socket.getsockname()[1])
        self.socket.sendall(
            f"GET /runs/{run_id}/events HTTP/1.1\r\nhost: {address.netloc}\r\n\r\n".encode()
        )
        assert self.socket.recv(15, socket.MSG_WAITALL) == b"HTTP/1.1 200 OK"

    def close(self) -> None:
        self.socket.close()

    @property
    def is_served(self) -> bool:
        """Whether the gateway still holds its end: a closed one has no inode in the kernel's
        table, whatever is still on its way (proc_net_tcp)."""
        for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
            _, local, remote, *_, inode = line.split()[:10]
            ports = tuple(int(end.partition(":")[2], 16) for end in (local, remote))
            if ports == self._ends:
                return inode != "0"
        return False


async def read_slowly(reader: SlowReader, seconds: float) -> int:
    """Takes ``SLOW_BYTES_PER_S``; answers how many bytes that were."""
    loop = asyncio.get_running_loop()
    reader.socket.setblocking(False)
    taken = 0
    began = time.monotonic()
    while (now := time.monotonic() - began) < seconds:
        async with asyncio.timeout(10):
            try:
                data = await loop.sock_recv(reader.socket, SLOW_BYTES_PER_S // 4)
            except ConnectionError:
                data = b""
        assert data, f"cut after {now:.1f} s although it had taken {taken} bytes"
        taken += len(data)
        await asyncio.sleep(0.25)  # this is the slowness
    return taken


async def read_all(gateway: Gateway, run_id: str) -> str:
    """SHA-256 of the body, which has its proper end."""
    digest = hashlib.sha256()
    async with (
        client(gateway) as http,
        http.stream("GET", f"/runs/{run_id}/events") as response,
    ):
        assert response.status_code == 200
        async for chunk in response.aiter_raw():
            digest.update(chunk)
    return digest.hexdigest()


@pytest.mark.timeout(110)
async def test_frozen_readers_cost_the_others_nothing_and_are_cut_while_a_slow_one_is_not(
    start_gateway: Callable[..., Gateway],
) -> None:
    gateway = await asyncio.to_thread(start_gateway, heartbeat_seconds=600)
    async with client(gateway) as http:
        await http.post("/chat", json={"text": "sim:tokens,n=10"})  # all code is loaded
        before = rss(gateway)
        response = await http.post("/runs", json={"text": SCRIPT, "on_disconnect": "continue"})
        run_id = response.json()["run_id"]
    began = time.monotonic()
    with ExitStack() as stack:
        slow, *frozen = [
            stack.enter_context(closing(SlowReader(gateway, run_id))) for _ in range(1 + FROZEN)
        ]
        async with asyncio.TaskGroup() as tasks:
            kept = tasks.create_task(read_slowly(slow, SLOW_FOR_S))
            async with asyncio.timeout(OTHERS_S):
                others = await asyncio.gather(*(read_all(gateway, run_id) for _ in range(OTHERS)))
            assert all(reader.is_served for reader in frozen), "while these are stuck"
            grown = rss(gateway) - before
            assert grown < LOG_BYTES + ALLOWANCE_BYTES, f"{grown / MIB:.0f} MiB more"
            await until(lambda: not any(reader.is_served for reader in frozen), "they are cut", 60)
            cut_s = time.monotonic() - began
        assert CUT_AFTER_S - 1 <= cut_s <= CUT_AFTER_S + LATE_S
        assert slow.is_served, f"cut although it took {kept.result()} bytes"
        assert kept.result() < MIB, "it was slow indeed"

    async with client(gateway) as http:
        whole = await http.get(f"/runs/{run_id}/events")
    assert set(others) == {hashlib.sha256(whole.content).hexdigest()}
    answer = Answer(whole.headers, whole.content)
    assert answer.text == answer.one("final")["text"] == expected_text(SCRIPT)
    assert answer.names[-1] == "done"
