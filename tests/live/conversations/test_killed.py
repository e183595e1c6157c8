"""Gateways that are killed, and several that share a database."""

import asyncio
import json
import re
import signal
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.live.asking import ask, marker
from tests.live.conversations.talking import (
    Said,
    call,
    conversation_of,
    messages,
    said,
    started,
    told,
)
from tests.live.reading import chat, until
from tests.live.servers import Gateway, SimulatorProcess

pytestmark = pytest.mark.anyio

Start = Callable[..., Gateway]


@pytest.fixture
def shared(database: dict[str, str], tmp_path: Path) -> dict[str, Any]:
    """Settings of gateways that use the same database."""
    return database or {"data_dir": tmp_path}


async def test_a_gateway_that_was_killed_leaves_the_question_and_a_failed_answer(
    start_gateway: Start, simulator: SimulatorProcess, shared: dict[str, Any]
) -> None:
    mark = marker()
    question = f"sim:stall,after=3 {mark}"
    killed = start_gateway(**shared)
    id_ = conversation_of(await ask(killed, f"sim:tokens,n=1 {mark}"))
    before = await said(killed, id_)
    async with chat(killed.url, question, conversation_id=id_) as stream:
        await stream.events(4)
        killed.signal(signal.SIGKILL)
        await asyncio.to_thread(killed.wait)

    gateway = start_gateway(**shared)

    async def look() -> list[Said]:
        return await said(gateway, id_)

    left = [*before, Said("user", question), Said("assistant", "", "failed")]
    if "data_dir" in shared:
        assert await look() == left
    else:  # whose server may take a moment to see that a connection is gone
        await until(look, lambda found: found == left, "a failed answer")
    await ask(gateway, "sim:tokens,n=2", conversation_id=id_)
    asked = [("user", question), ("user", "sim:tokens,n=2")]
    assert (await told(simulator, mark))[-2:] == asked
    assert (await look())[len(left) :] == [
        Said("user", "sim:tokens,n=2"),
        Said("assistant", "tok0 tok1 "),
    ]
    if "data_dir" in shared:
        with closing(sqlite3.connect(shared["data_dir"] / "gateway.db")) as file:
            assert file.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


async def test_an_answer_whose_end_was_told_outlives_its_gateway(
    start_gateway: Start, tmp_path: Path
) -> None:
    ids = []
    for _ in range(5):
        gateway = await asyncio.to_thread(start_gateway, data_dir=tmp_path)
        async with chat(gateway.url, "sim:tokens,n=3") as stream:
            ids.append(await started(stream))
            while (await stream.events(1))[0].event != "done":
                pass
            gateway.signal(signal.SIGKILL)
            await asyncio.to_thread(gateway.wait)
    gateway = await asyncio.to_thread(start_gateway, data_dir=tmp_path)
    for id_ in ids:
        assert (await said(gateway, id_))[1:] == [Said("assistant", "tok0 tok1 tok2 ")]


async def test_a_gateway_that_is_told_to_end_stores_the_part(
    start_gateway: Start, tmp_path: Path
) -> None:
    gateway = start_gateway(data_dir=tmp_path, drain_seconds=0)
    async with chat(gateway.url, "sim:stall,after=2") as stream:
        await stream.events(3)
        gateway.signal(signal.SIGTERM)
        assert await asyncio.to_thread(gateway.wait) == 0
    with closing(sqlite3.connect(tmp_path / "gateway.db")) as file:
        rows = file.execute("SELECT status, content FROM messages ORDER BY seq").fetchall()
    assert [status for status, _ in rows] == ["completed", "failed"]
    assert json.loads(rows[1][1])["text"] == "tok0 tok1 "


async def test_gateways_share_a_database_and_leave_each_others_runs_alone(
    start_gateway: Start, shared: dict[str, Any]
) -> None:
    """Two start at once on an empty one; a third comes while an answer is made."""
    one, other = await asyncio.gather(
        *(asyncio.to_thread(start_gateway, **shared) for _ in range(2))
    )
    id_ = conversation_of(await ask(one, "sim:tokens,n=1"))
    await ask(other, "sim:tokens,n=2", conversation_id=id_)
    async with chat(one.url, "sim:stall,after=2", conversation_id=id_) as stream:
        assert await started(stream) == id_
        await stream.events(2)
        third = await asyncio.to_thread(start_gateway, **shared)
        for gateway in (third, other, one):
            assert (await messages(gateway, id_))[-1]["status"] == "running"
        await call(one, "DELETE", f"/runs/{await stream.run_id()}")
    for gateway in (one, other, third):  # it answers once what it has to write is written
        found = await said(gateway, id_)
        assert [message.text for message in found[1::2]] == ["tok0 ", "tok0 tok1 ", "tok0 tok1 "]
        assert found[-1].status == "cancelled"
    for gateway in (one, other, third):
        assert not re.search("Traceback|ERROR|cut off", gateway.output), gateway.output
