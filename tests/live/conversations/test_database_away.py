"""PostgreSQL goes away and comes back: streams go on, and what was said is stored in the end."""

import asyncio
import json
import re
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.live.asking import Answer, ask, assert_problem, get
from tests.live.conversations.talking import Said, call, conversation_of, said, started
from tests.live.reading import answer as text_of
from tests.live.reading import chat, names, until
from tests.live.servers import Gateway, SimulatorProcess
from tests.postgres import Postgres, running_postgres

pytestmark = pytest.mark.anyio

ONCE = "sim:tokens,n=1"
SECRET = "not-for-the-terminal"


@pytest.fixture(scope="module")
def server() -> Iterator[Postgres]:
    """One that may be stopped."""
    with running_postgres() as postgres:
        yield postgres


@contextmanager
def away(server: Postgres) -> Iterator[None]:
    server.stop()
    try:
        yield
    finally:
        server.start()


async def ready(gateway: Gateway) -> dict[str, str]:
    """The status of each part."""
    response = await get(gateway, "/ready")
    parts = {name: part["status"] for name, part in response.json()["parts"].items()}
    assert response.status_code == (200 if set(parts.values()) == {"ok"} else 503)
    return parts


async def is_ready(gateway: Gateway, database: str) -> dict[str, str]:
    return await until(
        lambda: ready(gateway), lambda parts: parts["database"] == database, f"{database} database"
    )


async def assert_refused(gateway: Gateway, id_: str) -> None:
    """What cannot be done without the database."""
    path = f"/conversations/{id_}"
    for method, at, body in [
        ("POST", "/chat", {"text": ONCE, "conversation_id": id_}),
        ("POST", f"{path}/regenerate", None),
        ("GET", path, None),
        ("PATCH", path, {"title": "x"}),
        ("DELETE", path, None),
        ("GET", "/conversations", None),
    ]:
        refused = await call(gateway, method, at, body)
        assert_problem(refused, 503, "overloaded")
        assert int(refused.headers["retry-after"]) > 0


async def test_nobody_who_reads_sees_it_and_nothing_is_lost(
    server: Postgres, start_gateway: Callable[..., Gateway]
) -> None:
    gateway = start_gateway(database_url=server.database())
    before = conversation_of(await ask(gateway, ONCE))
    script = "sim:tokens,n=60,interval=0.05"
    async with chat(gateway.url, script) as stream:
        streamed = await started(stream)
        await stream.events(5)
        with away(server):
            new = [await ask(gateway, f"sim:tokens,n={count}") for count in range(5)]
            parts = await is_ready(gateway, "unavailable")
            assert {name for name, status in parts.items() if status != "ok"} == {"database"}
            await assert_refused(gateway, before)
            more = {"text": ONCE, "conversation_id": conversation_of(new[0])}
            assert_problem(await call(gateway, "POST", "/chat", more), 503, "overloaded")
            rest = await stream.rest()
            assert names(rest)[-2:] == ["final", "done"]
        assert await is_ready(gateway, "ok") == dict.fromkeys(parts, "ok")

    assert [answer.names[-1] for answer in new] == ["done"] * 5
    text = json.loads(rest[-2].data)["text"]
    assert text.endswith(text_of(rest))
    assert await said(gateway, streamed) == [Said("user", script), Said("assistant", text)]
    for count, answer in enumerate(new):
        assert await said(gateway, conversation_of(answer)) == [
            Said("user", f"sim:tokens,n={count}"),
            Said("assistant", answer.one("final")["text"]),
        ]
    listed = (await get(gateway, "/conversations")).json()["items"]
    ids = [streamed, *map(conversation_of, new)]
    assert [item["id"] for item in listed] == [*reversed(ids), before]
    await ask(gateway, ONCE, conversation_id=before)
    assert len(await said(gateway, before)) == 4


async def test_what_is_lost_when_the_gateway_ends_meanwhile_is_told_by_its_ids(
    server: Postgres, start_gateway: Callable[..., Gateway]
) -> None:
    gateway = start_gateway(database_url=server.database())
    with away(server):
        answer = await ask(gateway, f"{ONCE} nobody's business")
        gateway.signal(signal.SIGTERM)
        assert await asyncio.to_thread(gateway.wait) == 0
    lost = re.findall(
        r"conversation (\S+), run (\S+): messages (.*) were not stored", gateway.output
    )
    assert [(id_, run) for id_, run, _ in lost] == [(conversation_of(answer), answer.run_id)] * 2
    question, answered = (ids.split(", ") for _, _, ids in lost)
    assert question[-1:] == answered
    assert len(question) == 2
    assert "business" not in gateway.output
    assert "Traceback" not in gateway.output


async def test_a_gateway_serves_before_its_database_is_there(
    server: Postgres, simulator: SimulatorProcess, tmp_path: Path
) -> None:
    url = server.database().replace("gateway@", f"gateway:{SECRET}@")
    with away(server):
        gateway = Gateway(tmp_path, simulator.url, database_url=url)
        try:
            answers = await asked_without(gateway)
        except BaseException:
            gateway.stop()
            raise
    try:
        await is_ready(gateway, "ok")
        for k, answer in enumerate(answers):
            shown = [Said("user", f"{ONCE} {k}"), Said("assistant", "tok0 ")]
            assert await said(gateway, conversation_of(answer)) == shown
    finally:
        gateway.stop()
    assert "Traceback" not in gateway.output
    assert SECRET not in gateway.output


async def asked_without(gateway: Gateway) -> list[Answer]:
    await until(lambda: ready(gateway), lambda parts: parts["model_library"] == "ok", "the model")
    answers = [await ask(gateway, f"{ONCE} {k}") for k in range(3)]
    assert [answer.text for answer in answers] == ["tok0 "] * 3
    await assert_refused(gateway, "unknown")
    parts: dict[str, Any] = await ready(gateway)
    assert {name for name, status in parts.items() if status != "ok"} == {"database"}
    return answers
