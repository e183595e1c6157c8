"""A run that one worker makes is read on another one as if it were made there."""

import asyncio

import pytest

from app.simulator.scripts import expected_text
from app.wire.parse import Event, parse
from tests.live.reading import (
    HEARTBEAT,
    Stream,
    answer,
    ask,
    chat,
    followed,
    frames,
    names,
    payload,
    stats,
    until,
)
from tests.live.servers import Gateway, SimulatorProcess
from tests.live.sharing.pairs import (
    Pair,
    Wanderer,
    assert_contiguous,
    cancel,
    look,
    read,
    start,
)
from tests.live.test_resume import GETS, POSTS, WAYS

pytestmark = pytest.mark.anyio


async def frames_of(stream: Stream) -> list[bytes]:
    return [frame for frame in frames(await stream.body()) if frame != HEARTBEAT]


async def behind(gateway: Gateway, way: str, cursor: str) -> list[bytes]:
    async with WAYS[way](gateway.url, cursor) as stream:
        got = await frames_of(stream)
        assert stream.status == 200, got
    return got


async def test_live_readers_with_every_cursor_get_the_same_bytes_on_both_workers(
    pair: Pair, simulator: SimulatorProcess
) -> None:
    prompt = ask("tokens,n=40,interval=0.03")
    async with chat(pair.a.url, prompt) as first, asyncio.TaskGroup() as tasks:
        reads = [tasks.create_task(behind(pair.b, "?after=", f"{await first.run_id()}.0"))]
        starts = [0]
        for count in range(1, 40):
            event = (await first.events(1))[0]
            for gateway in (pair.a, pair.b) if count % 10 == 1 else (pair.b,):
                way = list(WAYS)[count % len(WAYS)]
                reads.append(tasks.create_task(behind(gateway, way, event.id)))
                starts.append(count)
        whole = await frames_of(first)

    events = parse(b"".join(whole))
    assert answer(events) == payload(events[-2])["text"] == expected_text(prompt)
    assert_contiguous(events)
    for count, task in zip(starts, reads, strict=True):
        assert task.result() == whole[count:], f"from {count}"
    assert (await stats(simulator, prompt))["started"] == 1


async def test_what_a_reader_does_not_want_to_see_is_hidden_on_the_other_worker_too(
    pair: Pair,
) -> None:
    run_id = await start(pair.a, ask("reasoning,n=20,interval=0.03"), include=["reasoning"])
    asked = [{}, {"include": ""}, {"include": "reasoning"}, {"include": "tools"}]
    reads = await asyncio.gather(
        *(read(gateway, run_id, **query) for query in asked for gateway in (pair.a, pair.b))
    )

    for query, on_a, on_b in zip(asked, reads[::2], reads[1::2], strict=True):
        assert on_a == on_b, query
    everything = parse(reads[0])
    assert reads[0] == reads[4]
    assert names(everything).count("reasoning") == 20
    shown = [event for event in everything if event.event != "reasoning"]
    assert parse(reads[2]) == parse(reads[6]) == shown


async def test_a_run_that_has_ended_is_replayed_on_the_other_worker_up_to_its_end(
    pair: Pair,
) -> None:
    async with chat(pair.a.url, ask("awkward")) as stream:
        whole = await frames_of(stream)
    events = parse(b"".join(whole))
    run_id = events[0].id.rpartition(".")[0]
    for count, event in enumerate(events[:-1], start=1):
        assert await behind(pair.b, list(WAYS)[count % len(WAYS)], event.id) == whole[count:]
    for past in (0, 1, 1_000_000):
        for way, resume in WAYS.items():
            async with resume(pair.b.url, f"{run_id}.{len(events) + past}") as stream:
                assert await stream.body() == b""
                assert stream.status == (204 if way in GETS else 200)
    assert len(POSTS) + len(GETS) == len(WAYS)
    assert await look(pair.a, run_id) == await look(pair.b, run_id)


@pytest.mark.parametrize("script", ["bulk,bytes=4000000,chunk=500", "big,bytes=2000000"])
async def test_a_large_answer_is_the_same_on_both_workers(pair: Pair, script: str) -> None:
    """As fast as it comes: many entries in Redis, or one that is larger than all limits there."""
    prompt = ask(script)
    run_id = await start(pair.a, prompt)
    reads = await asyncio.gather(*(read(gateway, run_id) for gateway in (pair.a, pair.b) * 2))
    assert len({*reads}) == 1
    assert answer(parse(reads[0])) == expected_text(prompt)
    assert await read(pair.b, run_id, f"{run_id}.2") == b"\n\n".join(reads[0].split(b"\n\n")[2:])


async def test_a_run_looks_the_same_on_both_workers_while_it_runs(pair: Pair) -> None:
    run_id = await start(pair.a, ask("stall,after=3"))
    on_a = await until(lambda: look(pair.a, run_id), lambda run: run["last_seq"] == 4, "3 tokens")
    on_b = await until(lambda: look(pair.b, run_id), lambda run: run["last_seq"] == 4, "3 tokens")
    assert on_a == on_b
    assert on_b["status"] == "running"
    assert (await cancel(pair.b, run_id))[0] == 200
    assert await look(pair.a, run_id) == await look(pair.b, run_id)


async def test_a_cursor_far_ahead_of_a_running_run_is_refused_on_the_other_worker(
    pair: Pair,
) -> None:
    async with chat(pair.a.url, ask("stall,after=2")) as stream:
        last: Event = (await stream.events(3))[-1]
        run_id = await stream.run_id()
        for way, resume in WAYS.items():
            async with resume(pair.b.url, f"{run_id}.1000") as ahead:
                assert (await ahead.problem())["code"] == "bad_cursor", way
                assert ahead.status == 400
        async with WAYS["GET /chat"](pair.b.url, last.id) as waiting:
            await cancel(pair.b, run_id)
            assert names(await waiting.rest()) == ["done"]


async def test_a_run_that_is_unknown_to_all_is_unknown(pair: Pair) -> None:
    nobody = "A" * 22
    for way, resume in WAYS.items():
        async with resume(pair.b.url, f"{nobody}.1") as stream:
            assert (await stream.problem())["code"] == "not_found", way
            assert stream.status == 404
    async with followed(pair.b.url, nobody) as stream:
        assert (await stream.problem())["code"] == "not_found"


async def test_readers_that_are_cut_anywhere_and_come_back_anywhere_get_everything_once(
    pair: Pair, simulator: SimulatorProcess
) -> None:
    wanderers = [Wanderer([pair.a, pair.b], seed) for seed in range(50)]
    prompts = [ask(f"tokens,n=120,interval={(0, 0.005, 0.02)[seed % 3]}") for seed in range(50)]
    await asyncio.gather(
        *(
            wanderer.ask(prompt, grace_seconds=60)
            for wanderer, prompt in zip(wanderers, prompts, strict=True)
        )
    )

    for wanderer, prompt in zip(wanderers, prompts, strict=True):
        assert answer(wanderer.events) == expected_text(prompt)
        assert_contiguous(wanderer.events)
        assert names(wanderer.events)[-2:] == ["final", "done"]
        assert (await stats(simulator, prompt))["started"] == 1
    assert sum(wanderer.cuts for wanderer in wanderers) >= 250


async def test_a_reader_that_knows_more_than_redis_loses_and_repeats_nothing(pair: Pair) -> None:
    """The run's worker tells its readers what it has before it tells Redis: so whoever comes from
    there with all that there was is ahead of what the other worker can know."""
    run_id = await start(pair.a, ask("tokens,n=10000,interval=0.003"))
    events: list[Event] = []
    for hop in range(120):
        url, cursor = (pair.b if hop % 2 else pair.a).url, f"{run_id}.{len(events)}"
        async with followed(url, run_id, cursor) as stream:
            await stream.head()
            assert stream.status == 200, (hop, await stream.body())
            await stream.events(1)
            events += parse(b"".join(stream.writes).replace(HEARTBEAT, b""))
    assert_contiguous(events)
    assert answer(events) == "".join(f"tok{k} " for k in range(len(events) - 1))
    await cancel(pair.a, run_id)
