"""``GATEWAY_WORKERS=2``: one port, two processes, and a parent that replaces them."""

import asyncio
import os
import signal
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from app.simulator.scripts import expected_text
from tests.live.asking import Answer, ask, assert_problem, client, marker, until
from tests.live.servers import PLAIN, Gateway, SimulatorProcess
from tests.redis_server import RedisServer

pytestmark = pytest.mark.anyio

START_S = 60.0  # on a busy machine; a worker starts in one or two
SHORT = "sim:tokens,n=20,interval=0.1"  # 2 s: ends inside of the drain
LONG = "sim:tokens,n=10000,interval=0.1"
STREAMS = ("close", "close", "close", "keep-alive", "keep-alive")
ENOUGH = 20  # requests that were answered, before and after something happens

Start = Callable[..., Gateway]


@pytest.fixture
def start(start_gateway: Start, redis_server: RedisServer) -> Start:
    """Two workers."""

    def two(**settings: object) -> Gateway:
        url = f"{redis_server.url}?prefix={marker()}"
        return start_gateway(**{"workers": 2, "redis_url": url, **settings})

    return two


def workers(parent: int) -> set[int]:
    children = Path(f"/proc/{parent}/task/{parent}/children")
    return {int(pid) for pid in children.read_text().split()}


def is_alive(pid: int) -> bool:
    with suppress(FileNotFoundError, ProcessLookupError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


def served_by(pid: int, port: int) -> int:
    """How many connections to that port the process has."""
    local = f":{port:04X}"
    rows = [line.split() for line in Path(f"/proc/{pid}/net/tcp").read_text().splitlines()]
    inodes = {row[9] for row in rows if row[1].endswith(local) and row[3] == "01"}  # established
    links = []
    for link in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):  # closed while we looked
            links.append(str(link.readlink()))
    return sum(f"socket:[{inode}]" in links for inode in inodes)


def port_of(gateway: Gateway) -> int:
    port = urlsplit(gateway.url).port
    assert port is not None
    return port


async def both_serve(gateway: Gateway) -> None:
    """Of so many connections each has some."""
    async with client(gateway) as http, asyncio.TaskGroup() as tasks:
        asked = [tasks.create_task(http.get("/health")) for _ in range(50)]
        assert {(await each).status_code for each in asked} == {200}
        counts = [served_by(pid, port_of(gateway)) for pid in workers(gateway.pid)]
    assert len(counts) == 2
    assert min(counts) > 0, counts


async def replaced(gateway: Gateway, gone: set[int]) -> None:
    """Others serve in their place, and they have ended."""
    await until(
        lambda: len(workers(gateway.pid)) == 2 and not workers(gateway.pid) & gone,
        "new workers",
        START_S,
    )


class Asking:
    """Streams of small questions, on connections of their own or on one that is kept."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self.answered = 0
        self.failed: list[str] = []
        self._stop = False

    async def ask(self, connection: str) -> None:
        async with client(self._gateway, headers={"connection": connection}) as http:
            while not self._stop:
                try:
                    async with asyncio.timeout(START_S):
                        response = await http.post("/chat", json={"text": "sim:tokens,n=2"})
                except (httpx.HTTPError, TimeoutError) as error:
                    self.failed.append(type(error).__name__)
                    continue
                if response.status_code != 200:
                    self.failed.append(response.text)
                elif Answer(response.headers, response.content).text != "tok0 tok1 ":
                    self.failed.append("not whole")
                else:
                    self.answered += 1

    async def go_on(self) -> None:
        enough = self.answered + ENOUGH
        await until(lambda: self.answered >= enough, "answers", START_S)

    def stop(self) -> None:
        self._stop = True


@asynccontextmanager
async def asking(gateway: Gateway) -> AsyncIterator[Asking]:
    questions = Asking(gateway)
    async with asyncio.TaskGroup() as tasks:
        for connection in STREAMS:
            tasks.create_task(questions.ask(connection))
        try:
            await questions.go_on()
            yield questions
            await questions.go_on()
        finally:
            questions.stop()


@asynccontextmanager
async def one_stream(
    gateway: Gateway, text: str
) -> AsyncIterator[tuple[asyncio.Task[Answer], int]]:
    """A stream that has begun, and the worker that serves it."""
    before = {pid: served_by(pid, port_of(gateway)) for pid in workers(gateway.pid)}
    async with asyncio.TaskGroup() as tasks:
        stream = tasks.create_task(ask(gateway, text))
        serving: list[int] = []

        def one() -> bool:
            serving[:] = [
                pid for pid, count in before.items() if served_by(pid, port_of(gateway)) > count
            ]
            return bool(serving)

        await until(one, "a worker serves the stream")
        yield stream, serving[0]


async def test_both_workers_answer_on_one_port_and_say_so_once(start: Start) -> None:
    gateway = await asyncio.to_thread(start)
    await both_serve(gateway)
    assert gateway.output.count("page  ") == gateway.output.count("data  ") == 1
    assert gateway.find(r"^data\s+(.*)").endswith("runs in Redis")


async def test_a_worker_that_dies_is_replaced_and_no_connection_is_refused(start: Start) -> None:
    gateway = await asyncio.to_thread(start)
    victim, other = workers(gateway.pid)
    async with asking(gateway) as questions:
        os.kill(victim, signal.SIGKILL)
        await replaced(gateway, {victim})
    assert other in workers(gateway.pid)
    assert len(questions.failed) <= len(STREAMS)  # what the victim was answering
    assert set(questions.failed) <= {"RemoteProtocolError", "ReadError", "WriteError"}
    assert "SIGKILL" in gateway.find(rf"(.*worker {victim}\b.*)")


async def test_a_restart_of_all_workers_fails_no_request_and_ends_no_stream(start: Start) -> None:
    gateway = await asyncio.to_thread(start)
    before = workers(gateway.pid)
    async with one_stream(gateway, SHORT) as (stream, _), asking(gateway) as questions:
        gateway.signal(signal.SIGHUP)
        await replaced(gateway, before)
    assert questions.failed == []
    assert (await stream).text == expected_text(SHORT)
    assert gateway.output.count("page  ") == 1


async def test_a_worker_that_is_told_to_end_is_relieved_first(start: Start) -> None:
    gateway = await asyncio.to_thread(start)
    async with one_stream(gateway, SHORT) as (stream, leaving), asking(gateway) as questions:
        (other,) = workers(gateway.pid) - {leaving}
        os.kill(leaving, signal.SIGTERM)
        await replaced(gateway, {leaving})
    assert questions.failed == []
    assert other in workers(gateway.pid)
    assert (await stream).text == expected_text(SHORT)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda number: number.name)
async def test_a_signal_drains_all_workers(start: Start, number: signal.Signals) -> None:
    """Also where a service manager or a terminal signals all of them."""
    gateway = await asyncio.to_thread(start, drain_seconds=20)
    pids = workers(gateway.pid)
    async with one_stream(gateway, SHORT) as (stream, _):
        for pid in (gateway.pid, *pids):
            os.kill(pid, number)
        refused = await until_refused(gateway)
        assert_problem(refused, 503, "draining")
    assert (await stream).text == expected_text(SHORT)
    assert await asyncio.to_thread(gateway.wait) == 0
    assert not [pid for pid in pids if is_alive(pid)]
    assert "Traceback" not in gateway.output


async def until_refused(gateway: Gateway) -> httpx.Response:
    answers: list[httpx.Response] = []

    def refused() -> bool:
        # What comes in the very moment in which a worker without runs closes its socket is reset.
        with suppress(httpx.ReadError):
            answers.append(httpx.post(f"{gateway.url}/runs", json={"text": "sim:tokens"}, **PLAIN))
        return bool(answers) and answers[-1].status_code != 201

    await until(refused, "a new run is refused")
    return answers[-1]


async def test_a_second_signal_ends_all_workers_at_once(
    start: Start, simulator: SimulatorProcess
) -> None:
    gateway = await asyncio.to_thread(start, drain_seconds=600)
    pids = workers(gateway.pid)
    word = marker()
    async with (
        client(gateway) as http,
        http.stream("POST", "/chat", json={"text": f"{LONG} {word}"}) as response,
    ):
        assert response.status_code == 200
        gateway.signal(signal.SIGTERM)
        await until_refused(gateway)
        gateway.signal(signal.SIGTERM)
        assert await asyncio.to_thread(gateway.wait, 15) == 0
    assert not [pid for pid in pids if is_alive(pid)]
    assert "killed" not in gateway.output
    await until(lambda: simulator.stats(word)["open"] == 0, "no upstream call is left")


async def test_workers_whose_parent_was_killed_finish_and_end(start: Start) -> None:
    gateway = await asyncio.to_thread(start, drain_seconds=20)
    pids = workers(gateway.pid)
    try:
        async with one_stream(gateway, SHORT) as (stream, _):
            gateway.signal(signal.SIGKILL)
        assert (await stream).text == expected_text(SHORT)
        await until(lambda: not [pid for pid in pids if is_alive(pid)], "the workers end", START_S)
    finally:
        for pid in filter(is_alive, pids):
            os.kill(pid, signal.SIGKILL)
    with socket.socket() as again:
        again.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        again.bind(("127.0.0.1", port_of(gateway)))
