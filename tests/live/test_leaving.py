"""Who leaves stops paying: the upstream call ends in time, and nothing is left of it anywhere.
Contract section 6. What the upstream saw, and when, is told by the simulator's own clock."""

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack
from signal import SIGTERM

import httpx
import pytest

from app.simulator import expected_text
from tests.live.leaving import (
    ENDLESS,
    GRACE_S,
    LEAVE,
    MOMENTS,
    Leaving,
    calling,
    ended,
    ending_of,
    open_files,
    status_of,
)
from tests.live.reading import Stream, answer, ask, chat, client, followed, opened, stats, until
from tests.live.servers import Gateway, SimulatorProcess

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("nothing_is_left")]

LOAD = 200


@pytest.mark.parametrize("leave", LEAVE.values(), ids=LEAVE)
@pytest.mark.parametrize(("script", "read"), MOMENTS.values(), ids=MOMENTS)
async def test_without_grace_the_upstream_call_ends_at_once_when_the_client_leaves(
    patient: Gateway,
    upstream: SimulatorProcess,
    script: str,
    read: int | None,
    leave: Callable[[Stream], None],
) -> None:
    prompt = ask(script)
    async with chat(patient.url, prompt, grace_seconds=0) as stream:
        if read:
            await stream.events(read)
        await calling(upstream, prompt)
        leaving = Leaving(patient, upstream)
        leave(stream)
        calls = await ended(upstream, prompt)

    assert len(calls) == 1
    leaving.assert_in_time(calls[0], 0)


@pytest.mark.parametrize(
    ("asked", "grace_s"), [(None, GRACE_S), (0, 0), (1.2, 1.2)], ids=["setting", "0", "1.2"]
)
@pytest.mark.parametrize("method", ["POST", "GET"])
async def test_the_run_lives_on_for_the_grace_of_the_request_or_the_setting(
    patient: Gateway, upstream: SimulatorProcess, method: str, asked: float | None, grace_s: float
) -> None:
    prompt = ask(ENDLESS)
    fields = {"text": prompt} | ({} if asked is None else {"grace_seconds": asked})
    path = "/chat" if method == "POST" else f"/chat?{httpx.QueryParams(fields)}"
    async with opened(patient.url, method, path, fields if method == "POST" else None) as stream:
        await stream.events(2)
        run_id = await stream.run_id()
        leaving = Leaving(patient, upstream)
        stream.reset()
        calls = await ended(upstream, prompt)

    leaving.assert_in_time(calls[0], grace_s)
    assert await ending_of(patient, run_id) == "cancelled"


async def test_a_reader_that_took_nothing_of_much_can_leave(
    patient: Gateway, upstream: SimulatorProcess
) -> None:
    """The gateway's write buffer is full, so it has stopped to write."""
    prompt = ask("bulk,chunk=65536,interval=0.04")  # 7 MiB in 4.5 s
    async with chat(patient.url, prompt, grace_seconds=0) as stream:
        stream.freeze()
        await until(
            lambda: stats(upstream, prompt),
            lambda seen: bool(seen["calls"]) and seen["calls"][0]["bytes_sent"] > 2_000_000,
            "2 MB of the answer",
        )
        leaving = Leaving(patient, upstream)
        stream.reset()
        leaving.assert_in_time((await ended(upstream, prompt))[0], 0)


async def test_clients_that_leave_right_after_asking_leave_nothing_behind(
    patient: Gateway, upstream: SimulatorProcess
) -> None:
    prompt = ask("silent")
    for leave in LEAVE.values():
        for _ in range(20):
            async with chat(patient.url, prompt, grace_seconds=0) as stream:
                leave(stream)
    await ended(upstream, prompt)  # however many of them got as far as a run


async def test_a_reader_that_comes_back_within_the_grace_keeps_the_run_alive(
    patient: Gateway, upstream: SimulatorProcess
) -> None:
    """The answer takes twice the grace; each reader but the last leaves early."""
    prompt = ask("tokens,n=21,interval=0.05")
    async with chat(patient.url, prompt) as stream:
        events = await stream.events(1)
        run_id = await stream.run_id()
        stream.reset()
    for _ in range(3):
        async with followed(patient.url, run_id, events[-1].id) as stream:
            events += await stream.events(1)
            stream.close()
    async with followed(patient.url, run_id, events[-1].id) as stream:
        events += await stream.rest()

    assert answer(events) == expected_text(prompt)
    assert [call["outcome"] for call in await ended(upstream, prompt)] == ["finished"]


async def test_only_the_last_reader_s_leaving_counts(
    patient: Gateway, upstream: SimulatorProcess
) -> None:
    prompt = ask("tokens,n=20,interval=0.05")
    async with chat(patient.url, prompt, grace_seconds=0) as first, AsyncExitStack() as stack:
        second = await stack.enter_async_context(followed(patient.url, await first.run_id()))
        await second.events(1)
        first.reset()
        assert (await second.rest())[-2].event == "final"
    assert [call["outcome"] for call in await ended(upstream, prompt)] == ["finished"]


async def test_a_run_that_shall_continue_goes_on_without_readers(
    patient: Gateway, upstream: SimulatorProcess
) -> None:
    prompt = ask("tokens,n=30,interval=0.05")  # three times the grace
    async with chat(patient.url, prompt, on_disconnect="continue") as stream:
        await stream.events(1)
        run_id = await stream.run_id()
        stream.reset()
    assert await ending_of(patient, run_id) == "completed"
    assert [call["outcome"] for call in await ended(upstream, prompt)] == ["finished"]


async def test_the_grace_of_post_runs_begins_with_its_first_reader_s_leaving(
    patient: Gateway, upstream: SimulatorProcess
) -> None:
    prompt = ask(ENDLESS)
    async with client(patient.url) as http:
        body = {"text": prompt, "grace_seconds": 0}
        run_id = (await http.post("/runs", json=body)).json()["run_id"]
        await until(
            lambda: http.get(f"/runs/{run_id}"),
            lambda run: run.json()["last_seq"] > 3,
            "tokens that nobody reads",
        )
    async with followed(patient.url, run_id) as stream:
        await stream.events(2)
        leaving = Leaving(patient, upstream)
        stream.reset()
        leaving.assert_in_time((await ended(upstream, prompt))[0], 0)


async def test_leaving_after_done_is_not_a_cancel(
    patient: Gateway, upstream: SimulatorProcess
) -> None:
    prompt = ask("tokens,n=3")
    for leave in [*LEAVE.values()] * 5:
        async with chat(patient.url, prompt, grace_seconds=0) as stream:
            await stream.until("done")
            leave(stream)
            assert await status_of(patient, await stream.run_id()) == "completed"
    assert {call["outcome"] for call in await ended(upstream, prompt)} == {"finished"}


@pytest.mark.parametrize("grace_s", [0.0, 1.0])
async def test_of_200_clients_that_leave_at_once_every_upstream_call_ends_in_time(
    start_gateway: Callable[..., Gateway], upstream: SimulatorProcess, grace_s: float
) -> None:
    """Twice 200 on a gateway that takes few more than 200, because an answer may still be being
    stored when its call has ended: many left over would be refused. And a run or a task that was
    left over would hold up its end."""
    gateway = start_gateway(upstream=upstream.url, max_runs=LOAD * 5 // 4, max_readers=LOAD)
    port = httpx.URL(upstream.url).port or 0
    before = open_files(gateway.pid, port)
    scripts = [*MOMENTS.values()]
    for _ in range(2):
        mark = ask("x").removeprefix("sim:x ")
        async with AsyncExitStack() as stack:
            streams = []
            for number in range(LOAD):
                script, read = scripts[number % len(scripts)]
                prompt = f"sim:{script.replace('0.05', '0.25')} {mark} {number}"
                opening = chat(gateway.url, prompt, grace_seconds=grace_s)
                streams.append((await stack.enter_async_context(opening), read))
            await asyncio.gather(*(stream.events(read) for stream, read in streams if read))
            await calling(upstream, mark, LOAD)
            leaving = Leaving(gateway, upstream)
            for number, (stream, _) in enumerate(streams):
                [*LEAVE.values()][number % 2](stream)
            calls = await ended(upstream, mark)
        assert len({call["prompt"] for call in calls}) == LOAD
        for call in calls:
            leaving.assert_in_time(call, grace_s)

        async def more() -> tuple[int, int]:
            now = open_files(gateway.pid, port)
            return max(0, now[0] - before[0]), now[1] - before[1]

        await until(more, lambda seen: seen == (0, 0), "no more open files than before")
    gateway.signal(SIGTERM)
    assert gateway.wait(5) == 0
    assert "Traceback" not in gateway.output
