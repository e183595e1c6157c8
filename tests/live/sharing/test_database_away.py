"""PostgreSQL goes away while Redis is there: streams go on everywhere, and what was said is stored
when it is back."""

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

from app.simulator.scripts import expected_text
from tests.live.asking import assert_problem, get
from tests.live.conversations.talking import Said, call, said, started
from tests.live.reading import answer, ask, chat, followed, names, payload, until
from tests.live.servers import Gateway
from tests.live.sharing.conftest import StartPair
from tests.live.sharing.pairs import cancel, ending, look, quiet, start
from tests.postgres import Postgres, running_postgres
from tests.redis_server import RedisServer

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def server() -> Iterator[Postgres]:
    """One that may be stopped."""
    with running_postgres() as postgres:
        yield postgres


async def parts_of(gateway: Gateway) -> dict[str, str]:
    response = await get(gateway, "/ready")
    return {name: part["status"] for name, part in response.json()["parts"].items()}


async def is_ready(gateway: Gateway, database: str) -> None:
    parts = await until(
        lambda: parts_of(gateway), lambda parts: parts["database"] == database, database
    )
    assert parts["store"] == "ok"


async def test_streams_go_on_and_answers_are_stored_later(
    start_pair: StartPair, redis_server: RedisServer, server: Postgres
) -> None:
    pair = await asyncio.to_thread(
        start_pair, redis_server, database_url=server.database(), reconnect_grace_seconds=1
    )
    prompt, stopped = ask("tokens,n=60,interval=0.05"), ask("stall,after=2")
    async with chat(pair.a.url, prompt) as on_a, chat(pair.a.url, stopped) as cancelled:
        run_id = await on_a.run_id()
        conversations = [await started(on_a), await started(cancelled)]
        async with followed(pair.b.url, run_id) as on_b:
            await asyncio.gather(on_a.events(3), on_b.events(3), cancelled.events(2))
            server.stop()
            try:
                await is_ready(pair.a, "unavailable")
                stopping = asyncio.ensure_future(cancel(pair.b, await cancelled.run_id()))
                new = ask("tokens,n=4")
                new_run = await start(pair.b, new)
                async with followed(pair.a.url, new_run) as stream:
                    assert answer(await stream.rest()) == expected_text(new)
                refused: dict[str, Any] = {"text": "x", "conversation_id": conversations[0]}
                problem = await call(pair.b, "POST", "/chat", refused)
                assert problem.status_code in (409, 503), "busy, or nobody can tell"
                for gateway in (pair.a, pair.b):
                    gone = await call(gateway, "GET", f"/conversations/{conversations[0]}")
                    assert_problem(gone, 503, "overloaded")
                rest = await asyncio.gather(on_a.rest(), on_b.rest())
            finally:
                server.start()
        assert rest[0] == rest[1][1:]
        assert names(rest[1])[-2:] == ["final", "done"]
        text = payload(rest[1][-2])["text"]
        assert text == expected_text(prompt)
        status, told = await stopping
        assert (status, told["status"]) == (200, "cancelled")
    for gateway in (pair.a, pair.b):
        await is_ready(gateway, "ok")
    new_conversation = (await look(pair.a, new_run))["conversation_id"]
    wanted = {
        conversations[0]: [Said("user", prompt), Said("assistant", text)],
        conversations[1]: [Said("user", stopped), Said("assistant", "tok0 tok1 ", "cancelled")],
        new_conversation: [Said("user", new), Said("assistant", expected_text(new))],
    }
    for gateway in (pair.b, pair.a):
        for conversation_id, messages in wanted.items():
            assert await said(gateway, conversation_id) == messages
    assert (await ending(pair.b, run_id))["status"] == "completed"
    await quiet(pair.store)
