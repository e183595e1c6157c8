"""One worker goes while the other one serves, as in a rolling restart."""

import asyncio
import signal
from contextlib import AsyncExitStack, suppress

import pytest

from app.simulator.scripts import expected_text
from app.wire.parse import Event
from tests.live.asking import ask as ask_whole
from tests.live.asking import assert_problem
from tests.live.conversations.talking import Said, call, said
from tests.live.leaving import ENDLESS, ended
from tests.live.reading import Stream, answer, ask, chat, followed, names, payload, until
from tests.live.servers import SimulatorProcess
from tests.live.sharing.conftest import StartPair
from tests.live.sharing.pairs import assert_contiguous, cancel, look, quiet, start
from tests.redis_server import RedisServer

pytestmark = pytest.mark.anyio


async def until_cut(stream: Stream) -> list[Event]:
    events = []
    with suppress(asyncio.IncompleteReadError, ConnectionResetError):
        while event := await stream.event():
            events.append(event)
    return events


async def test_a_worker_that_is_told_to_end_leaves_nobody_without_an_ending(
    start_pair: StartPair, redis_server: RedisServer, simulator: SimulatorProcess
) -> None:
    pair = await asyncio.to_thread(start_pair, redis_server, drain_seconds=3)
    short, long, stopped = ask("tokens,n=40,interval=0.05"), ask(ENDLESS), ask(ENDLESS)
    elsewhere = ask("tokens,n=120,interval=0.05")
    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        here = {prompt: await enter(chat(pair.a.url, prompt)) for prompt in (short, long, stopped)}
        there = {
            prompt: await enter(followed(pair.b.url, await stream.run_id()))
            for prompt, stream in here.items()
        }
        other_run = await start(pair.b, elsewhere)
        read_here = await enter(followed(pair.a.url, other_run))
        for stream in (*here.values(), *there.values(), read_here):
            await stream.events(3)
        pair.a.signal(signal.SIGTERM)

        async def refused() -> int:
            return (await call(pair.a, "POST", "/chat", {"text": "Hello"})).status_code

        await until(refused, lambda code: code == 503, "no new runs")
        assert_problem(await call(pair.a, "POST", "/runs", {"text": "Hello"}), 503, "draining")
        assert (await ask_whole(pair.b, "sim:tokens,n=2")).text == "tok0 tok1 "
        status, told = await cancel(pair.b, await here[stopped].run_id())
        assert (status, told["status"]) == (200, "cancelled"), "cancels are served meanwhile"

        endings = {short: "completed", long: "failed", stopped: "cancelled"}
        for prompt, status_ in endings.items():
            on_a, on_b = await asyncio.gather(here[prompt].rest(), there[prompt].rest())
            assert on_a == on_b
            assert payload(on_a[-1])["status"] == status_
            if status_ == "failed":
                assert names(on_b)[-2:] == ["error", "done"]
                assert payload(on_b[-2])["code"] == "draining"
                assert payload(on_b[-2])["retryable"] is True
        # A reader of another worker's run is cut, and resumes there.
        cut = await until_cut(read_here)
        assert await asyncio.to_thread(pair.a.wait) == 0
        run_id = await here[short].run_id()
        async with followed(pair.b.url, run_id) as stream:
            events = await stream.rest()
        assert_contiguous(events)
        assert answer(events) == expected_text(short)
        conversation_id = str(payload(events[0])["conversation_id"])
        assert await said(pair.b, conversation_id) == [
            Said("user", short),
            Said("assistant", answer(events)),
        ]
        if not cut or cut[-1].event != "done":
            last = cut[-1].id if cut else f"{other_run}.3"
            async with followed(pair.b.url, other_run, last) as stream:
                cut += await stream.rest()
        assert payload(cut[-1])["status"] == "completed"
        assert answer(cut) == expected_text(elsewhere).removeprefix("tok0 tok1 ")
        for prompt in (long, stopped):
            assert (await ended(simulator, prompt))[0]["outcome"] == "aborted"
            run = await look(pair.b, await here[prompt].run_id())
            assert run["status"] == endings[prompt]
        again = {"text": long, "conversation_id": conversation_id}
        assert (await call(pair.b, "POST", "/runs", again)).status_code == 201
        await call(pair.b, "DELETE", f"/conversations/{conversation_id}")
    await quiet(pair.store)
