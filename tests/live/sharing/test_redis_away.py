"""Redis goes away and comes back, with its data or without: who reads sees nothing of it."""

import asyncio
import json
import time
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager
from typing import Any

import pytest

from app.simulator.scripts import expected_text
from tests.live.asking import assert_problem, get, marker
from tests.live.conversations.talking import call
from tests.live.leaving import ENDLESS, ended
from tests.live.reading import (
    HEARTBEAT,
    Stream,
    answer,
    ask,
    chat,
    followed,
    names,
    opened,
    payload,
    stats,
    until,
)
from tests.live.servers import Gateway, SimulatorProcess
from tests.live.sharing.pairs import (
    Pair,
    assert_contiguous,
    cancel,
    ending,
    look,
    quiet,
    seen,
    several,
    start,
    store_in,
)
from tests.redis_server import RedisServer, running_redis

pytestmark = pytest.mark.anyio

REFUSED_S = 3.0  # the issue's: new runs are refused once the state is known


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    """One that may be stopped."""
    with running_redis() as redis:
        yield redis


@pytest.fixture(scope="module")
def pair(
    server: RedisServer, simulator: SimulatorProcess, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Pair]:
    store = store_in(server)
    cwds = [tmp_path_factory.mktemp(name) for name in ("a", "b")]
    settings = {"redis_url": store.url, "data_dir": cwds[0], "heartbeat_seconds": 0.5}
    with several(simulator, cwds, settings) as (a, b):
        yield Pair(a, b, store)
        for gateway in (a, b):
            assert "Traceback" not in gateway.output, gateway.output


@contextmanager
def away(server: RedisServer, *, keep: bool) -> Iterator[None]:
    server.stop(keep=keep)
    try:
        yield
    finally:
        server.start()


async def store_of(gateway: Gateway) -> str:
    response = await get(gateway, "/ready")
    parts = {name: part["status"] for name, part in response.json()["parts"].items()}
    others = {status for name, status in parts.items() if name != "store"}
    assert others == {"ok"}
    assert response.status_code == (200 if parts["store"] == "ok" else 503)
    return str(parts["store"])


@pytest.fixture(autouse=True)
async def both_are_ready(pair: Pair) -> None:
    """After a restart no run begins until all workers had time to write what Redis forgot."""
    for gateway in (pair.a, pair.b):
        await is_ready(gateway, "ok")


async def is_ready(gateway: Gateway, store: str) -> None:
    await until(lambda: store_of(gateway), lambda seen: seen == store, f"{store} store")


async def assert_refused(gateway: Gateway, method: str, path: str, **body: Any) -> None:
    began = time.monotonic()
    response = await call(gateway, method, path, body or None)
    assert_problem(response, 503, "overloaded")
    assert int(response.headers["retry-after"]) > 0
    assert time.monotonic() - began < REFUSED_S


async def silent(stream: Stream) -> None:
    """It has been answered, and nothing comes but heartbeats."""
    await stream.head()
    assert stream.status == 200
    for _ in range(2):
        assert await stream.write() == HEARTBEAT


async def test_nobody_who_reads_sees_that_redis_is_away(
    server: RedisServer, pair: Pair, simulator: SimulatorProcess
) -> None:
    short, long, stopped = ask("tokens,n=40,interval=0.05"), ask(ENDLESS), ask(ENDLESS)
    forsaken, kept = ask(ENDLESS), ask(ENDLESS)
    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        ends = await enter(chat(pair.a.url, short))
        goes_on = await enter(chat(pair.a.url, long))
        cancelled = await enter(chat(pair.a.url, stopped))
        ends_b = await enter(followed(pair.b.url, await ends.run_id()))
        run_id = await goes_on.run_id()
        goes_on_b = await enter(followed(pair.b.url, run_id))
        left = await enter(chat(pair.a.url, forsaken, grace_seconds=1))
        kept_run = await start(pair.a, kept, grace_seconds=1)
        kept_b = await enter(followed(pair.b.url, kept_run))
        await asyncio.gather(left.events(2), kept_b.events(2))
        async with followed(pair.a.url, kept_run) as visitor:
            await visitor.events(2)
        for stream in (ends, goes_on, cancelled, ends_b, goes_on_b):
            await stream.events(3)
        with away(server, keep=True):
            stopping = asyncio.ensure_future(cancel(pair.a, await cancelled.run_id()))
            left.close()
            for gateway in (pair.a, pair.b):
                await assert_refused(gateway, "POST", "/chat", text="Hello")
                await assert_refused(gateway, "POST", "/runs", text="Hello")
                await is_ready(gateway, "unavailable")
            assert (await ended(simulator, stopped))[0]["outcome"] == "aborted"
            await ends.events(38)
            assert answer(seen(ends)) == expected_text(short)
            assert (await look(pair.a, await ends.run_id()))["status"] == "running"
            await goes_on.events(80)
            assert (await stats(simulator, forsaken))["open"] == 1, "its reader may be elsewhere"
            assert (await stats(simulator, kept))["open"] == 1, "who reads elsewhere counts"
            late = await enter(followed(pair.b.url, run_id, f"{run_id}.5"))
            unknown = await enter(followed(pair.b.url, "A" * 22))
            chatting = {"last-event-id": f"{run_id}.7"}
            late_chat = await enter(opened(pair.b.url, "GET", "/chat", headers=chatting))
            await asyncio.gather(*map(silent, (late, unknown, late_chat)))
            await assert_refused(pair.b, "GET", f"/runs/{run_id}")
            assert not stopping.done()
            assert {event.event for event in seen(ends)} == {"start", "token"}
        assert (await ended(simulator, forsaken))[0]["outcome"] == "aborted"
        for stream in (ends, ends_b):
            await stream.rest()
            assert names(seen(stream))[-2:] == ["final", "done"]
            assert answer(seen(stream)) == expected_text(short)
        assert seen(ends) == seen(ends_b)
        status, told = await stopping
        assert (status, told["status"]) == (200, "cancelled")
        assert names(await cancelled.rest())[-1] == "done"
        assert (await unknown.body()).replace(HEARTBEAT, b"") == b""
        assert (await late.events(1))[0].id == f"{run_id}.6"
        assert (await late_chat.events(1))[0].id == f"{run_id}.8"
        for gateway in (pair.a, pair.b):
            await is_ready(gateway, "ok")
        await kept_b.events(100)
        assert_contiguous(seen(kept_b))
        await cancel(pair.b, run_id)
        for stream in (goes_on, goes_on_b, late, late_chat):
            await stream.rest()
        assert_contiguous(seen(goes_on))
        assert seen(goes_on) == seen(goes_on_b)
        assert seen(goes_on)[5:] == seen(late)
        assert seen(goes_on)[7:] == seen(late_chat)
    assert (await ended(simulator, kept))[0]["outcome"] == "aborted", "its reader left"
    for prompt in (short, long, stopped, kept):
        assert (await stats(simulator, prompt))["started"] == 1
    await quiet(pair.store)


async def test_runs_go_on_when_redis_comes_back_empty(
    server: RedisServer, pair: Pair, simulator: SimulatorProcess
) -> None:
    prompt, key = ask("tokens,n=150,interval=0.05"), {"idempotency-key": marker()}
    ended_run = await start(pair.a, ask("tokens,n=2"))
    await ending(pair.b, ended_run)
    silent_run = await start(pair.a, ask("tokens,n=3,first=8"), grace_seconds=60)
    kept_run = await start(pair.a, ask("tokens,n=140,interval=0.05"), grace_seconds=1)
    async with (
        chat(pair.a.url, prompt, headers=key) as on_a,
        followed(pair.b.url, kept_run) as only_there,
    ):
        run_id = await on_a.run_id()
        async with followed(pair.b.url, run_id) as on_b:
            await asyncio.gather(on_a.events(10), on_b.events(10), only_there.events(10))
            with away(server, keep=False):
                await on_a.events(5)
            await on_b.events(20)
            assert (await until_known(pair.b, run_id))["status"] == "running"
            await until_settled(pair.b)
            again = await start(pair.b, prompt, headers=key)
            assert again == run_id, "its key is still its own"
            assert (await look(pair.b, silent_run))["status"] == "running"
            assert (await look(pair.b, ended_run))["status"] == "completed", "written again, too"
            await asyncio.gather(on_a.rest(), on_b.rest())
            assert seen(on_a) == seen(on_b)
            assert_contiguous(seen(on_a))
            assert answer(seen(on_a)) == expected_text(prompt)
        async with followed(pair.a.url, kept_run) as visitor:
            await visitor.events(2)
        await only_there.rest()
        assert_contiguous(seen(only_there))
        assert payload(seen(only_there)[-1])["status"] == "completed"
    assert (await ending(pair.b, silent_run))["status"] == "completed"
    for gateway in (pair.a, pair.b):
        async with followed(gateway.url, silent_run) as stream:
            assert json.loads((await stream.rest())[-2].data)["text"] == "tok0 tok1 tok2 "
    assert (await stats(simulator, prompt))["started"] == 1
    await quiet(pair.store)


async def until_known(gateway: Gateway, run_id: str) -> dict[str, Any]:
    """A run that its worker has written again. Until then nobody says that it is unknown."""

    async def find() -> dict[str, Any]:
        response = await get(gateway, f"/runs/{run_id}")
        assert response.status_code in (200, 503), response.text
        shown: dict[str, Any] = response.json()
        return shown

    return await until(find, lambda shown: "run_id" in shown, "the run is known again")


async def until_settled(gateway: Gateway) -> None:
    """Until it knows that what it does not find is not there."""

    async def find() -> int:
        return (await get(gateway, f"/runs/{'A' * 22}")).status_code

    await until(find, lambda status: status == 404, "a run is unknown")


async def test_a_redis_that_stands_still_for_a_while_costs_nobody_a_token(
    server: RedisServer, pair: Pair
) -> None:
    prompt = ask("tokens,n=110,interval=0.05")
    async with chat(pair.a.url, prompt) as on_a:
        async with followed(pair.b.url, await on_a.run_id()) as on_b:
            await asyncio.gather(on_a.events(5), on_b.events(5))
            with server.frozen():
                await on_a.events(80)
                await is_ready(pair.a, "unavailable")
            await asyncio.gather(on_a.rest(), on_b.rest())
        assert answer(seen(on_a)) == expected_text(prompt)
        assert seen(on_a) == seen(on_b)
        assert payload(seen(on_b)[-1])["status"] == "completed"
        assert_contiguous(seen(on_b))
    await quiet(pair.store)


async def test_runs_go_on_when_redis_comes_back_with_what_it_knew_a_while_ago(
    server: RedisServer, pair: Pair
) -> None:
    """As it does after a crash, where it saves its data now and then."""
    old, new = ask("tokens,n=100,interval=0.05"), ask("tokens,n=80,interval=0.05")
    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        readers = [await enter(chat(pair.a.url, old))]
        readers += [await enter(followed(pair.b.url, await readers[0].run_id()))]
        await asyncio.gather(*(reader.events(10) for reader in readers))
        with server.client() as redis:
            redis.save()
        readers += [await enter(chat(pair.a.url, new))]
        readers += [await enter(followed(pair.b.url, await readers[2].run_id()))]
        await asyncio.gather(*(reader.events(10) for reader in readers))
        server.kill()
        server.start()
        for reader in (readers[0], readers[2]):
            run_id = await reader.run_id()
            readers.append(await enter(followed(pair.b.url, run_id, f"{run_id}.3")))
        for prompt, (on_a, on_b, late) in (
            (old, (readers[0], readers[1], readers[4])),
            (new, (readers[2], readers[3], readers[5])),
        ):
            await asyncio.gather(on_a.rest(), on_b.rest(), late.rest())
            assert_contiguous(seen(on_a))
            assert answer(seen(on_a)) == expected_text(prompt)
            assert seen(on_a) == seen(on_b)
            assert seen(on_a)[3:] == seen(late)
            run_id = await on_a.run_id()
            assert await look(pair.a, run_id) == await look(pair.b, run_id)
    await quiet(pair.store)
