"""SIGTERM and SIGINT: what runs may end, nothing new begins, and the process goes with code 0."""

import asyncio
import re
import signal
import socket
import time
from collections.abc import Callable
from contextlib import AsyncExitStack, closing
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from app.simulator.scripts import expected_text
from tests.live.asking import Answer, assert_problem, client, marker, until
from tests.live.servers import PLAIN, Gateway, Process, SimulatorProcess

pytestmark = pytest.mark.anyio

SHORT = "sim:tokens,n=20,interval=0.1"  # 2 s: ends inside of the drain
LONG = "sim:tokens,n=10000,interval=0.1"
DRAIN_S = 6


async def follow(
    http: httpx.AsyncClient, text: str, arrived: asyncio.Queue[str] | None = None
) -> Answer:
    """Ask and read to the proper end; put the run's id into ``arrived`` at its first token."""
    body = b""
    async with (
        asyncio.timeout(60),
        http.stream("POST", "/chat", json={"text": text}) as response,
    ):
        assert response.status_code == 200
        answer = Answer(response.headers, b"")
        async for chunk in response.aiter_raw():
            seen = b"event: token" in body
            body += chunk
            if arrived is not None and not seen and b"event: token" in body:
                arrived.put_nowait(answer.run_id)
    return Answer(response.headers, body)


async def all_of(arrived: asyncio.Queue[str], count: int) -> list[str]:
    async with asyncio.timeout(30):
        return [await arrived.get() for _ in range(count)]


async def until_draining(gateway: Gateway) -> None:
    def draining() -> bool:
        return httpx.get(f"{gateway.url}/ready", **PLAIN).status_code == 503

    await until(draining, "/ready says that it drains")


def assert_drained(answer: Answer) -> None:
    """Cut by us, but in words, and after all that had come."""
    assert answer.names[-2:] == ["error", "done"]
    error = answer.one("error")
    assert (error["code"], error["retryable"]) == ("draining", True)
    assert answer.one("done")["status"] == "failed"
    assert answer.text
    assert expected_text(LONG).startswith(answer.text)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda number: number.name)
async def test_fifty_streams_end_whole_or_in_words_while_nothing_new_begins(
    start_gateway: Callable[..., Gateway], simulator: SimulatorProcess, number: signal.Signals
) -> None:
    gateway = await asyncio.to_thread(start_gateway, drain_seconds=DRAIN_S)
    word = marker()
    async with client(gateway) as http, asyncio.TaskGroup() as tasks:
        begun: asyncio.Queue[str] = asyncio.Queue()
        long = [tasks.create_task(follow(http, f"{LONG} {word}", begun)) for _ in range(25)]
        resumed_id, stopped_id, *_ = await all_of(begun, 25)
        short = [tasks.create_task(follow(http, f"{SHORT} {word}", begun)) for _ in range(25)]
        await all_of(begun, 25)
        signalled = time.monotonic()
        gateway.signal(number)
        await until_draining(gateway)

        async with asyncio.timeout(DRAIN_S):
            late = marker()
            await assert_refused(http, late)
            assert (await http.get("/health")).status_code == 200
            assert_not_ready(await http.get("/ready"))
            resumed = tasks.create_task(resume(http, resumed_id))
            stopped = await http.delete(f"/runs/{stopped_id}")

        assert (stopped.status_code, stopped.json()["status"]) == (200, "cancelled")
        assert [(await task).names[-2:] for task in short] == [["final", "done"]] * 25
        assert {(await task).text for task in short} == {expected_text(SHORT)}
        assert time.monotonic() - signalled < DRAIN_S + 5
        for task in long:
            if (answer := await task).run_id == stopped_id:
                assert answer.one("done")["status"] == "cancelled"
            else:
                assert_drained(answer)
            if answer.run_id == resumed_id:
                whole = answer
        assert (await resumed).events == whole.events[1:]

    assert await asyncio.to_thread(gateway.wait) == 0
    assert DRAIN_S - 0.1 <= time.monotonic() - signalled < DRAIN_S + 10
    assert simulator.stats(late)["started"] == 0
    assert simulator.stats(word)["open"] == 0
    assert "Traceback" not in gateway.output


async def assert_refused(http: httpx.AsyncClient, text: str) -> None:
    for response in (
        await http.post("/chat", json={"text": text}),
        await http.post("/stream-chat", json={"text": text}),
        await http.post("/runs", json={"text": text}),
        await http.get("/chat", params={"text": text}),
    ):
        assert_problem(response, 503, "draining")
        assert re.fullmatch(r"[1-9][0-9]*", response.headers["retry-after"])


def assert_not_ready(response: httpx.Response) -> None:
    assert response.status_code == 503
    body = response.json()
    assert body["status"] != "ok"
    assert [part for part in body["parts"].values() if "drain" in str(part["detail"])]


async def resume(http: httpx.AsyncClient, run_id: str) -> Answer:
    headers = {"last-event-id": f"{run_id}.1"}
    async with asyncio.timeout(60):
        response = await http.get(f"/runs/{run_id}/events", headers=headers)
    assert response.status_code == 200
    return Answer(response.headers, response.content)


@pytest.mark.parametrize("is_draining", [True, False])
async def test_a_second_signal_ends_at_once(
    start_gateway: Callable[..., Gateway], is_draining: bool
) -> None:
    gateway = await asyncio.to_thread(start_gateway, drain_seconds=600)
    async with AsyncExitStack() as stack:
        http = await stack.enter_async_context(client(gateway))
        for _ in range(3):
            response = await stack.enter_async_context(
                http.stream("POST", "/chat", json={"text": LONG})
            )
            assert response.status_code == 200
        gateway.signal(signal.SIGTERM)
        if is_draining:
            await until_draining(gateway)
        gateway.signal(signal.SIGINT)  # else it comes before the first has been looked at
        await asyncio.to_thread(gateway.wait, 5)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda number: number.name)
async def test_an_idle_gateway_exits_at_once(
    start_gateway: Callable[..., Gateway], number: signal.Signals
) -> None:
    gateway = await asyncio.to_thread(start_gateway, drain_seconds=600)
    async with client(gateway) as http:
        await http.get("/health")  # a connection that is kept alive is no work
        gateway.signal(number)
        assert await asyncio.to_thread(gateway.wait, 5) == 0


def frozen(gateway: Gateway, text: str) -> socket.socket:
    """A connection that asked, took the first byte, and takes no more."""
    address = urlsplit(gateway.url)
    reader = socket.socket()
    reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16 * 1024)
    reader.settimeout(30)
    reader.connect((address.hostname, address.port))
    body = f'{{"text":"{text}"}}'
    head = f"POST /chat HTTP/1.1\r\nhost: {address.netloc}\r\ncontent-type: application/json\r\n"
    reader.sendall(f"{head}content-length: {len(body)}\r\n\r\n{body}".encode())
    assert reader.recv(1) == b"H"
    return reader


async def test_readers_that_take_nothing_do_not_prevent_the_exit(
    start_gateway: Callable[..., Gateway], simulator: SimulatorProcess
) -> None:
    """One of a run that has ended, one of a run that has not."""
    gateway = await asyncio.to_thread(start_gateway, drain_seconds=1)
    word = marker()
    ended = await asyncio.to_thread(frozen, gateway, f"sim:bulk,bytes=7340032 {word}")
    running = await asyncio.to_thread(
        frozen, gateway, "sim:bulk,bytes=8000000,chunk=16384,interval=0.02"
    )
    with closing(ended), closing(running):
        await until(lambda: simulator.stats(word)["finished"] == 1, "the first run has ended")
        began = time.monotonic()
        gateway.signal(signal.SIGTERM)
        assert await asyncio.to_thread(gateway.wait, 20) == 0
        assert time.monotonic() - began < 12


async def test_a_bare_uvicorn_ends_its_streams_in_words_too(
    simulator: SimulatorProcess, tmp_path: Path
) -> None:
    server = Process(
        "uvicorn", "app.main:app", "--port", "0",
        env={"OPENAI_BASE_URL": simulator.url, "GATEWAY_DRAIN_SECONDS": "600"},
        cwd=tmp_path,
    )  # fmt: skip
    try:
        url = server.find(r"running on (http://\S+)")
        begun: asyncio.Queue[str] = asyncio.Queue()
        async with (
            httpx.AsyncClient(base_url=url, timeout=60, **PLAIN) as http,
            asyncio.TaskGroup() as tasks,
        ):
            streams = [tasks.create_task(follow(http, LONG, begun)) for _ in range(10)]
            await all_of(begun, 10)
            server.signal(signal.SIGTERM)
            for stream in streams:
                assert_drained(await stream)
        await asyncio.to_thread(server.wait, 10)
        assert "Traceback" not in server.output
    finally:
        server.stop()
