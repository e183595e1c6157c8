"""Several workers, and a successor that does not come up."""

import asyncio
import os
import signal
from pathlib import Path

import pytest

from tests.live.asking import client, until
from tests.live.keyring import Keyring
from tests.live.servers import Gateway
from tests.live.test_workers import (
    START_S,
    Start,
    asking,
    both_serve,
    port_of,
    replaced,
    start,
    workers,
)

__all__ = ["start"]  # a fixture

pytestmark = pytest.mark.anyio

ANSWER_S = 10.0  # for one small question; it takes some milliseconds


def dotenv(gateway: Gateway) -> Path:
    return Path(f"/proc/{gateway.pid}/cwd").readlink() / ".env"


def listening(gateway: Gateway) -> int:
    """How many sockets listen on its port."""
    local = f":{port_of(gateway):04X}"
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()]
    return sum(row[1].endswith(local) and row[3] == "0A" for row in rows)


async def test_a_restart_with_settings_that_cannot_be_stops_at_the_first_worker(
    start: Start,
) -> None:
    gateway = await asyncio.to_thread(start)
    before = workers(gateway.pid)
    env = dotenv(gateway)
    env.write_text("GATEWAY_STALL_TIMEOUT_SECONDS=never\n")
    gateway.signal(signal.SIGHUP)
    await asyncio.to_thread(gateway.find, r"(restart stops here)")
    assert "GATEWAY_STALL_TIMEOUT_SECONDS" in gateway.output
    assert workers(gateway.pid) == before
    async with asking(gateway) as questions:
        env.write_text("GATEWAY_STALL_TIMEOUT_SECONDS=30\n")
        gateway.signal(signal.SIGHUP)
        await replaced(gateway, before)
    assert questions.failed == []


async def test_a_worker_that_dies_again_and_again_is_started_until_it_lives(start: Start) -> None:
    gateway = await asyncio.to_thread(start)
    victim, _ = workers(gateway.pid)
    env = dotenv(gateway)
    env.write_text("GATEWAY_PROT=1\n")
    os.kill(victim, signal.SIGKILL)
    await until(lambda: gateway.output.count("did not come up") >= 3, "three tries", START_S)
    env.unlink()
    async with asking(gateway) as questions:
        await replaced(gateway, {victim})
    assert questions.failed == []


async def test_a_worker_that_does_not_come_up_costs_nobody_a_connection(
    start: Start, tmp_path: Path
) -> None:
    keys = Keyring(tmp_path / "keys.toml")
    shown = {"authorization": f"Bearer {keys.add('alice')}", "connection": "close"}
    gateway = await asyncio.to_thread(start, api_keys_file=keys.file)
    victim, other = workers(gateway.pid)

    async def ask_often() -> None:
        async with client(gateway, headers=shown) as http:
            for _ in range(30):
                async with asyncio.timeout(ANSWER_S):
                    response = await http.post("/chat", json={"text": "sim:tokens,n=2"})
                assert response.status_code == 200, response.text

    def failures() -> int:
        return gateway.output.count("did not come up")

    keys.file.chmod(0o644)
    os.kill(victim, signal.SIGKILL)
    await until(lambda: failures() >= 1, "a successor does not come up", START_S)
    await ask_often()
    await until(lambda: failures() >= 3, "two more tries", START_S)
    await ask_often()
    keys.file.chmod(0o600)
    await until(lambda: listening(gateway) == 2, "both serve", START_S)
    assert other in workers(gateway.pid)
    assert victim not in workers(gateway.pid)
    await ask_often()
    await both_serve(gateway)
