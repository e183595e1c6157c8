"""Answers whose gateway died, with real processes; on both databases."""

import asyncio
import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from app.conversations import sql
from app.conversations.engine import make_engine
from app.conversations.sql import SqlStore
from app.events.model import Status
from tests.conversations.making import answer, ask, id_of
from tests.conversations.other import OtherGateway

pytestmark = pytest.mark.anyio
BOUND_S = 60


@pytest.fixture
def other_gateway(url: str, tmp_path: Path) -> Iterator[Callable[[], OtherGateway]]:
    with ExitStack() as stack:

        def start() -> OtherGateway:
            other = OtherGateway(url, tmp_path)
            stack.callback(other.stop)
            return other

        yield start


async def statuses(store: SqlStore, conversation_id: str) -> list[Status]:
    thread = await store.find(conversation_id, "me")
    assert thread is not None
    return [message.status for message in thread.messages]


async def kill(other: OtherGateway, url: str) -> None:
    """A server that is told of it by the network needs a moment."""
    held = await locks(url)
    other.signal(signal.SIGKILL)
    await asyncio.to_thread(other.wait)
    while url.startswith("postgresql") and await locks(url) == held:  # noqa: ASYNC110  a poll of the server, bounded by the caller
        await asyncio.sleep(0.01)


async def locks(url: str) -> int:
    """How many PostgreSQL knows of."""
    if not url.startswith("postgresql"):
        return 0
    here = "(SELECT oid FROM pg_database WHERE datname = current_database())"
    held = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND database = "
    return int(await on(url, held + here))


async def on(url: str, statement: str) -> Any:
    engine = make_engine(url)
    async with engine.begin() as connection:
        value = await connection.scalar(text(statement))
    await engine.dispose()
    return value


async def test_the_run_of_a_killed_gateway_has_failed_when_the_next_one_is_open(
    url: str, other_gateway: Callable[[], OtherGateway]
) -> None:
    async with asyncio.timeout(BOUND_S):
        other = other_gateway()
        id_ = await other.asked()
        await kill(other, url)
        store = SqlStore(url)
        await store.open()
        assert await statuses(store, id_) == ["completed", "failed"]
        assert await store.sweep() == 0
        await store.aclose()


async def test_the_run_of_another_gateway_goes_on_as_long_as_it_lives(
    url: str, store: SqlStore, other_gateway: Callable[[], OtherGateway]
) -> None:
    async with asyncio.timeout(BOUND_S):
        alive, dying = other_gateway(), other_gateway()
        ids = [await each.asked() for each in (alive, dying)]
        assert await store.sweep() == 0
        await kill(dying, url)
        assert await store.sweep() == 1
        assert await statuses(store, ids[0]) == ["completed", "running"]
        assert await statuses(store, ids[1]) == ["completed", "failed"]


async def test_our_own_runs_go_on(store: SqlStore) -> None:
    async with asyncio.timeout(BOUND_S):
        asked = ask()
        await store.write([asked])
        assert await store.sweep() == 0
        assert await statuses(store, id_of(asked)) == ["completed", "running"]


async def test_what_a_gateway_left_running_when_it_stopped_has_failed(
    url: str, store: SqlStore
) -> None:
    async with asyncio.timeout(BOUND_S):
        leaving, asked = SqlStore(url), ask()
        await leaving.open()
        await leaving.write([asked])
        await leaving.aclose()
        assert await store.sweep() == 1
        assert await statuses(store, id_of(asked)) == ["completed", "failed"]


async def test_an_answer_that_was_given_up_too_early_takes_its_place(
    url: str, store: SqlStore
) -> None:
    async with asyncio.timeout(BOUND_S):
        asked, second = ask(), SqlStore(url)
        await store.write([asked])
        await lose_locks(url)
        await second.open()
        assert await statuses(second, id_of(asked)) == ["completed", "failed"]
        await store.write([answer(asked)])
        assert await statuses(second, id_of(asked)) == ["completed", "completed"]
        await second.aclose()


async def test_a_lost_lock_is_taken_anew(url: str, store: SqlStore) -> None:
    async with asyncio.timeout(BOUND_S):
        assert await store._lock.keep(), "nothing was lost yet"
        await lose_locks(url)
        assert not await store._lock.keep()
        assert await store._lock.keep()
        asked, second = ask(), SqlStore(url)
        await store.write([asked])
        await second.open()
        assert await statuses(second, id_of(asked)) == ["completed", "running"]
        await second.aclose()


async def lose_locks(url: str) -> None:
    """Somebody tidies up a directory, or restarts what stands between us and the server."""
    if url.startswith("sqlite"):
        shutil.rmtree(Path(f"{url.partition(':///')[2]}.workers"))
        return
    everybody = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity"
    but_us = "datname = current_database() AND pid <> pg_backend_pid()"
    await on(url, f"{everybody} WHERE {but_us}")


async def test_a_gateway_looks_after_the_runs_of_those_that_die_later(
    url: str,
    store: SqlStore,
    other_gateway: Callable[[], OtherGateway],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sql, "KEEP_S", 0.02)
    monkeypatch.setattr(sql, "SWEEP_S", 0.1)
    async with asyncio.timeout(BOUND_S):
        other = other_gateway()
        id_ = await other.asked()
        tending = asyncio.ensure_future(store.tend())
        await kill(other, url)
        while await statuses(store, id_) != ["completed", "failed"]:  # noqa: ASYNC110  a poll of the database, bounded above
            await asyncio.sleep(0.02)
        assert not tending.done()
        tending.cancel()
        await asyncio.wait({tending})
