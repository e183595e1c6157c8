"""Thousands who read on one worker what another one makes."""

import asyncio
import re
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from app.simulator.scripts import expected_text
from tests.live.reading import ask, until
from tests.live.servers import Gateway
from tests.live.sharing.pairs import Pair, start
from tests.live.test_load import soft_limit_of_files, unchunked

pytestmark = pytest.mark.anyio

RUNS = 150
READERS = 10  # of each
CROWD = 500  # of one more
AT_ONCE = 200  # that are connecting just now: more than the backlog of a listening socket is no use
MOST_CONNECTIONS = 10  # the issue's: from one worker to Redis, besides the one that listens


@pytest.fixture
def room_for_files() -> Iterator[None]:
    """Each reader is a file of ours."""
    with soft_limit_of_files(4 * (RUNS * READERS + CROWD)):
        yield


async def follow(gateway: Gateway, run_id: str, slots: asyncio.Semaphore) -> bytes:
    """Over a bare socket, because thousands of any client would cost more than the gateway."""
    at = urlsplit(gateway.url)
    async with slots:
        reader, writer = await asyncio.open_connection(at.hostname, at.port)
        request = f"GET /runs/{run_id}/events HTTP/1.1\r\nhost: {at.netloc}\r\n"
        writer.write(f"{request}connection: close\r\n\r\n".encode())
        first = await reader.readuntil(b"\r\n\r\n")
    try:
        return first + await reader.read()
    finally:
        writer.close()


def connections(pair: Pair, gateway: Gateway) -> Counter[bool]:
    """Those of one gateway to Redis, by whether they listen."""
    files = set()
    for link in Path(f"/proc/{gateway.pid}/fd").iterdir():
        with suppress(FileNotFoundError):  # closed while we looked
            files.add(str(link.readlink()))
    rows = [line.split() for line in Path(f"/proc/{gateway.pid}/net/tcp").read_text().splitlines()]
    remote = f":{pair.store.redis.port:04X}"
    ports = {
        int(row[1].rpartition(":")[2], 16)
        for row in rows
        if row[2].endswith(remote) and f"socket:[{row[9]}]" in files
    }
    with pair.store.redis.client() as redis:
        clients: list[dict[str, Any]] = redis.client_list()
    ours = [each for each in clients if int(each["addr"].rpartition(":")[2]) in ports]
    return Counter(int(each["sub"]) > 0 for each in ours)


async def test_two_thousand_readers_on_the_other_worker_get_everything(
    pair: Pair, room_for_files: Callable[..., None]
) -> None:
    prompts = [ask("tokens,n=12,interval=0.5,first=2") for _ in range(RUNS + 1)]
    run_ids = await asyncio.gather(*(start(pair.a, prompt) for prompt in prompts))
    slots = asyncio.Semaphore(AT_ONCE)
    async with asyncio.timeout(100), asyncio.TaskGroup() as tasks:
        reads = [
            [tasks.create_task(follow(pair.b, run_id, slots)) for _ in range(count)]
            for run_id, count in zip(run_ids, [READERS] * RUNS + [CROWD], strict=True)
        ]
        await until(
            lambda: asyncio.to_thread(connections, pair, pair.b),
            lambda seen: seen[True] == 1,
            "the connection that listens",
        )
        most = Counter[bool]()
        while not all(task.done() for task in reads[-1]):
            most |= await asyncio.to_thread(connections, pair, pair.b)
            await asyncio.sleep(0.2)  # a sample of another process, until the readers are through

    assert most[True] == 1
    assert 0 < most[False] <= MOST_CONNECTIONS
    for prompt, run_id, tasks_of in zip(prompts, run_ids, reads, strict=True):
        bodies = {re.sub(b"(?m)^: hb\n", b"", unchunked(task.result()).body) for task in tasks_of}
        assert len(bodies) == 1, run_id
        answer = unchunked(tasks_of[0].result())
        assert answer.text == answer.one("final")["text"] == expected_text(prompt)
        assert [event.id for event in answer.events] == [f"{run_id}.{k}" for k in range(1, 16)]
        assert answer.one("done")["status"] == "completed"
