"""Counting, stopping, and the command line."""

import asyncio
import contextlib
import resource
import signal
import sys
import time

import httpx
import pytest

from app.simulator import Outcome, Simulator
from tests.simulator.reading import PATH, chat, connect, read, request

pytestmark = pytest.mark.anyio

BOUND_S = 20


async def test_stats_tell_who_got_how_much(client: httpx.AsyncClient) -> None:
    before = time.time()
    seen = await read(client, "sim:tokens,n=3 #mine " + "x" * 500)
    await read(client, "other", model="sim:eof,after=1")

    stats = (await client.get("/stats")).json()
    assert (stats["started"], stats["finished"], stats["failed"]) == (2, 1, 1)
    assert (stats["open"], stats["aborted"], stats["connections"]) == (0, 0, 1)
    mine = stats["calls"][0]
    assert mine["id"] == seen.chunks[0]["id"]
    assert (mine["spec"], mine["outcome"], mine["stream"]) == ("sim:tokens,n=3", "finished", True)
    assert len(mine["prompt"]) == 200
    assert mine["tokens_sent"] == 3
    assert mine["bytes_sent"] > len(seen.raw)
    assert before <= mine["started_at"] <= mine["ended_at"] <= time.time()


async def test_stats_can_be_asked_for_some_calls_alone(client: httpx.AsyncClient) -> None:
    for prompt in ("sim:tokens,n=1 #a b", "sim:tokens,n=2 #c", "sim:eof #c"):
        await read(client, prompt)
    await read(client, "", model="sim:tokens,n=4")

    async def counts(contains: str) -> tuple[int, int, int]:
        stats = (await client.get("/stats", params={"contains": contains})).json()
        return stats["started"], stats["finished"], len(stats["calls"])

    assert await counts("#a b") == (1, 1, 1)
    assert await counts("#c") == (2, 1, 2)
    assert await counts("n=4") == (1, 1, 1)
    assert await counts("#none") == (0, 0, 0)


async def test_a_reset_counts_from_zero_and_forgets_running_calls(
    client: httpx.AsyncClient, simulator: Simulator
) -> None:
    async with connect(simulator) as (_, writer):
        writer.write(request("sim:silent"))
        await simulator.until(lambda view: view.open == 1)
        await client.post("/reset")
        view = simulator.stats.view()
        assert (view.open, view.started, view.calls) == (1, 0, [])
    view = await simulator.until(lambda view: view.open == 0)
    assert (view.started, view.aborted) == (0, 0)


async def test_waiting_for_what_never_comes_says_so(simulator: Simulator) -> None:
    with pytest.raises(TimeoutError, match="started=0"):
        await simulator.until(lambda view: view.started == 1, timeout_s=0.05)


async def test_a_thousand_streams_are_counted_exactly(simulator: Simulator) -> None:
    """Half read to the end, half leave while theirs runs; both ends live in this process."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, max(soft, 4096)), hard))

    async def one(k: int) -> None:
        # n=3: the head and first token at once, the others when the call is 0.5 and 1 s old
        script = "sim:tokens,n=3,interval=0.5" if k % 2 else "sim:stall,after=2"
        async with connect(simulator) as (reader, writer):
            writer.write(request(f"{script} #{k}#"))
            await reader.readuntil(b"0\r\n\r\n" if k % 2 else b'"tok1 "')
            if k % 2 == 0:
                await all_open.wait()

    all_open = asyncio.Event()
    async with asyncio.timeout(BOUND_S), asyncio.TaskGroup() as tasks:
        for k in range(1000):
            tasks.create_task(one(k))
        view = await simulator.until(lambda view: view.started == 1000, timeout_s=BOUND_S)
        assert view.open + view.finished == 1000
        all_open.set()
    view = await simulator.until(lambda view: view.connections == 0, timeout_s=BOUND_S)

    assert (view.started, view.finished, view.aborted, view.open) == (1000, 500, 500, 0)
    assert {call.tokens_sent for call in view.calls if call.outcome is Outcome.FINISHED} == {3}
    assert {call.tokens_sent for call in view.calls if call.outcome is Outcome.ABORTED} == {2}


async def test_stopping_closes_everything_and_leaves_no_task() -> None:
    before = asyncio.all_tasks()
    simulator = Simulator()
    await simulator.start()
    url = simulator.url
    with pytest.raises(RuntimeError, match="already running"):
        await simulator.start()
    async with connect(simulator) as (reader, writer), connect(simulator):
        writer.write(request("sim:silent"))
        await simulator.until(lambda view: view.open == 1 and view.connections == 2)
        await simulator.stop()
        with contextlib.suppress(ConnectionResetError):
            async with asyncio.timeout(BOUND_S):
                while await reader.read(65536):
                    pass
    view = simulator.stats.view()
    assert (view.open, view.failed, view.connections) == (0, 1, 0)
    assert asyncio.all_tasks() == before
    await simulator.stop()
    async with httpx.AsyncClient() as client:
        with pytest.raises(httpx.ConnectError):
            await client.get(url + "/models")


async def test_a_stopped_simulator_can_start_again() -> None:
    simulator = Simulator()
    with pytest.raises(RuntimeError, match="not been started"):
        _ = simulator.url
    for _ in range(2):
        await simulator.start()
        async with httpx.AsyncClient() as client:
            answer = await client.post(simulator.origin + PATH, json=chat("sim:tokens,n=1"))
            assert answer.status_code == 200
        await simulator.stop()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_alone_it_prints_where_it_is_and_ends_with_zero_on_a_signal(
    number: signal.Signals,
) -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "app.simulator", "--port", "0"), stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    try:
        async with asyncio.timeout(BOUND_S):
            first = (await process.stdout.readline()).decode()
            assert (await process.stdout.readline()).startswith(b"try: curl -N http://127.0.0.1:")
            async with httpx.AsyncClient() as client:
                url = first.split("OPENAI_BASE_URL=")[1].strip()
                assert (await client.get(f"{url}/models")).status_code == 200
                slow = client.stream("POST", f"{url}/chat/completions", json=chat("sim:silent"))
                async with slow:
                    process.send_signal(number)
                    assert await process.wait() == 0
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


async def test_an_address_that_is_taken_is_one_line_and_not_a_traceback(
    simulator: Simulator,
) -> None:
    port = httpx.URL(simulator.url).port
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "app.simulator", "--port", str(port)),
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(BOUND_S):
        _, said = await process.communicate()
    assert process.returncode == 1
    assert said.startswith(b"cannot listen on 127.0.0.1:")
    assert said.count(b"\n") == 1
