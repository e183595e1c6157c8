"""The last reader anywhere starts the grace clock of a run, and a reader anywhere stops it."""

import asyncio
import time
from collections.abc import Callable
from typing import Any

import pytest

from tests.live.leaving import ENDLESS, GRACE_S, LEAVE, calling, ended
from tests.live.reading import Stream, ask, chat, followed, names, payload, seqs
from tests.live.servers import SimulatorProcess
from tests.live.sharing.pairs import Pair, cancel, ending, look, start

pytestmark = pytest.mark.anyio

# Above what two processes need to tell each other, below anything that happens periodically.
SOON_S = 4.0
LONGER = "tokens,n=35,interval=0.04"  # than two graces


async def assert_forsaken(
    pair: Pair,
    simulator: SimulatorProcess,
    run_id: str,
    prompt: str,
    left_at: float,
    grace_s: float,
) -> None:
    [call] = await ended(simulator, prompt)
    assert call["outcome"] == "aborted"
    assert grace_s - 0.01 <= call["ended_at"] - left_at <= grace_s + SOON_S
    runs = [await ending(gateway, run_id) for gateway in (pair.b, pair.a)]
    assert runs[0] == runs[1]
    assert runs[0]["status"] == "cancelled"


@pytest.mark.parametrize("leave", LEAVE.values(), ids=LEAVE)
@pytest.mark.parametrize("script", ["silent", ENDLESS], ids=["silent", "mid-answer"])
async def test_the_only_reader_leaves_the_other_worker_and_the_run_is_cancelled(
    pair: Pair, simulator: SimulatorProcess, leave: Callable[[Stream], None], script: str
) -> None:
    prompt = ask(script)
    run_id = await start(pair.a, prompt)
    await calling(simulator, prompt)
    async with followed(pair.b.url, run_id) as stream:
        await stream.events(1)
        leave(stream)
        left_at = time.time()
        await assert_forsaken(pair, simulator, run_id, prompt, left_at, GRACE_S)


@pytest.mark.parametrize("grace_s", [0, 2])
async def test_a_run_has_the_grace_that_was_asked_for(
    pair: Pair, simulator: SimulatorProcess, grace_s: float
) -> None:
    prompt = ask(ENDLESS)
    run_id = await start(pair.a, prompt, grace_seconds=grace_s)
    async with followed(pair.b.url, run_id) as stream:
        await stream.events(3)
        stream.close()
        left_at = time.time()
        await assert_forsaken(pair, simulator, run_id, prompt, left_at, grace_s)


async def test_a_reader_that_leaves_before_it_got_anything_counts(
    pair: Pair, simulator: SimulatorProcess
) -> None:
    prompt = ask(ENDLESS)
    run_id = await start(pair.a, prompt)
    await calling(simulator, prompt)
    async with followed(pair.b.url, run_id) as stream:
        await stream.head()
        stream.reset()
        await assert_forsaken(pair, simulator, run_id, prompt, time.time(), GRACE_S)


async def test_a_run_that_never_had_a_reader_goes_on(pair: Pair) -> None:
    run_ids = [await start(gateway, ask(LONGER)) for gateway in (pair.a, pair.b)]
    for run_id in run_ids:
        for gateway in (pair.b, pair.a):
            assert (await ending(gateway, run_id))["status"] == "completed"


@pytest.mark.parametrize("stays", ["a", "b"])
async def test_the_run_goes_on_as_long_as_somebody_reads_on_either_worker(
    pair: Pair, stays: str
) -> None:
    stayer, leaver = (pair.a, pair.b) if stays == "a" else (pair.b, pair.a)
    run_id = await start(pair.a, ask(LONGER))
    async with followed(stayer.url, run_id) as stream:
        await stream.events(2)
        for _ in range(3):
            async with followed(leaver.url, run_id) as other:
                await other.events(3)
        assert names(await stream.rest())[-2:] == ["final", "done"]


async def test_without_grace_too_the_run_goes_on_while_somebody_reads_elsewhere(
    pair: Pair,
) -> None:
    async def read_there(leave: Callable[[Stream], None]) -> str:
        async with chat(pair.a.url, ask(LONGER), grace_seconds=0) as here:
            await here.events(1)
            async with followed(pair.b.url, await here.run_id()) as there:
                await there.events(2)
                leave(here)
                return str((await there.rest())[-2].event)

    reads = await asyncio.gather(*(read_there(leave) for leave in list(LEAVE.values()) * 5))
    assert set(reads) == {"final"}


async def test_a_run_that_was_to_continue_does(pair: Pair) -> None:
    run_id = await start(pair.a, ask(LONGER), on_disconnect="continue")
    async with followed(pair.b.url, run_id) as stream:
        await stream.events(3)
    assert (await ending(pair.b, run_id))["status"] == "completed"


async def test_a_reader_that_comes_back_to_any_worker_in_time_keeps_the_run(pair: Pair) -> None:
    """Each stay is longer than the grace, so a clock that was not stopped would show."""
    async with chat(pair.a.url, ask("tokens,n=80,interval=0.04")) as stream:
        run_id = await stream.run_id()
        events = await stream.events(2)
    for gateway in (pair.b, pair.a, pair.b, pair.b):
        async with followed(gateway.url, run_id, events[-1].id) as stream:
            events += await stream.events(16)
    async with followed(pair.b.url, run_id, events[-1].id) as stream:
        events += await stream.rest()
    assert seqs(events) == list(range(1, 84))
    assert payload(events[-1])["status"] == "completed"


async def test_readers_that_move_from_worker_to_worker_keep_their_runs(
    pair: Pair, simulator: SimulatorProcess
) -> None:
    """Many times, so that leaving, coming and the clock meet in every order."""

    async def move(prompt: str) -> dict[str, Any]:
        async with chat(pair.a.url, prompt) as stream:
            run_id = await stream.run_id()
            last = (await stream.events(1))[0]
        for hop in range(12):
            gateway = (pair.b, pair.a)[hop % 2]
            async with followed(gateway.url, run_id, last.id) as stream:
                last = (await stream.events(5))[-1]
        return await look(pair.b, run_id)

    prompts = [ask(ENDLESS) for _ in range(10)]
    runs = await asyncio.gather(*map(move, prompts))
    assert {run["status"] for run in runs} == {"running"}
    for prompt, run in zip(prompts, runs, strict=True):  # now that nobody comes back
        assert (await ending(pair.b, run["run_id"]))["status"] == "cancelled"
        assert (await ended(simulator, prompt))[0]["outcome"] == "aborted"


async def test_leaving_after_the_end_changes_nothing(pair: Pair) -> None:
    run_id = await start(pair.a, ask("tokens,n=3"))
    async with followed(pair.b.url, run_id) as stream:
        await stream.rest()
    assert (await look(pair.a, run_id))["status"] == "completed"
    assert (await cancel(pair.b, run_id))[1]["stopped_after_ms"] == 0
