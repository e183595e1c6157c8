"""Databases that are locked, full, frozen, stopped: what is said then, and that nothing is lost."""

import asyncio
import sqlite3
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing, contextmanager
from pathlib import Path

import pytest

from app.conversations import engine, journal
from app.conversations.journal import Journal
from app.conversations.model import Write
from app.conversations.sql import SqlStore
from app.conversations.store import Unavailable
from tests.conversations.making import answer, ask, id_of
from tests.postgres import Postgres

pytestmark = pytest.mark.anyio
BOUND_S = 60


@pytest.fixture(autouse=True)
def short_clocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal, "RETRY_S", (0.01, 0.1))
    monkeypatch.setattr(journal, "SETTLE_WAIT_S", BOUND_S)
    monkeypatch.setattr(engine, "_PRAGMAS", (*engine._PRAGMAS, "busy_timeout = 50"))


@asynccontextmanager
async def opened(url: str) -> AsyncIterator[SqlStore]:
    async with asyncio.timeout(BOUND_S):
        store = SqlStore(url)
        await store.open()
        yield store
        await store.aclose()


@asynccontextmanager
async def written_by(store: SqlStore) -> AsyncIterator[Journal]:
    kept = Journal(store)
    task = asyncio.ensure_future(kept.run())
    yield kept
    task.cancel()
    await asyncio.wait({task})


async def live(kept: Journal, asked: Write) -> None:
    await kept.keep(asked)
    kept.keep_later(answer(asked))


async def is_whole(store: SqlStore, asked: Write) -> bool:
    thread = await store.find(id_of(asked), "me")
    return thread is not None and thread.messages == (
        asked.messages[0],
        *answer(asked).messages,
    )


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Another program writes, and takes its time."""
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield
        other.execute("ROLLBACK")


async def test_while_another_program_locks_the_file_writes_wait_and_reads_go_on(
    tmp_path: Path,
) -> None:
    path = tmp_path / "gateway.db"
    async with opened(f"sqlite+aiosqlite:///{path}") as store, written_by(store) as kept:
        first, second = ask(), ask()
        await live(kept, first)
        await kept.settled(id_of(first))
        with locked(path):
            with pytest.raises(Unavailable, match=r"^SQLITE_BUSY$"):
                await store.rename(id_of(first), "me", "x")
            await live(kept, second)
            assert kept.trouble == "SQLITE_BUSY"
            assert await is_whole(store, first)
        await kept.settled(id_of(second))
        assert await is_whole(store, second)
        assert kept.trouble is None


async def test_on_a_full_disk_writes_wait(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pragmas = (*engine._PRAGMAS, "max_page_count = 40")
    monkeypatch.setattr(engine, "_PRAGMAS", pragmas)
    monkeypatch.setattr(engine, "CONNECTIONS", 1)
    async with opened(f"sqlite+aiosqlite:///{tmp_path}/gateway.db") as store:
        asked = ask("x" * 1_000_000)
        async with written_by(store) as kept:
            await kept.keep(asked)
            assert kept.trouble == "SQLITE_FULL"
            async with store._engine.connect() as connection:
                await connection.exec_driver_sql("PRAGMA max_page_count = 40000")
            await kept.settled(id_of(asked))
        assert await store.find(id_of(asked), "me")


async def test_while_its_tables_are_missing_writes_wait(url: str) -> None:
    async with opened(url) as store, written_by(store) as kept:
        before, meanwhile = ask(), ask()
        await store.write([before, answer(before)])
        async with store._engine.begin() as connection:
            for table in ("messages", "conversations", "alembic_version"):
                await connection.exec_driver_sql(f"DROP TABLE {table}")
        await live(kept, meanwhile)
        assert kept.trouble == "its tables are missing"
        with pytest.raises(Unavailable):
            await store.find(id_of(before), "me")
        async with opened(url):  # a gateway that starts makes them
            await kept.settled(id_of(meanwhile))
        assert await is_whole(store, meanwhile)


async def test_a_file_that_cannot_be_opened_or_is_none_is_unavailable(tmp_path: Path) -> None:
    (tmp_path / "damaged.db").write_bytes(b"no database" * 1000)
    (tmp_path / "directory.db").mkdir()
    for name, kind in (("damaged", "SQLITE_NOTADB"), ("directory", "SQLITE_CANTOPEN")):
        store = SqlStore(f"sqlite+aiosqlite:///{tmp_path}/{name}.db")
        with pytest.raises(Unavailable, match=f"^{kind}$"):
            await store.open()
        await store.aclose()
    async with asyncio.timeout(BOUND_S):
        # aiosqlite does not wait for the thread of a connection that it could not make.
        while any("connection_worker" in thread.name for thread in threading.enumerate()):  # noqa: ASYNC110  threads tell nobody
            await asyncio.sleep(0.001)


async def test_a_server_that_stops_and_comes_back_costs_nothing(postgres: Postgres) -> None:
    async with opened(postgres.database()) as store, written_by(store) as kept:
        before, meanwhile, after = ask(), ask(), ask()
        await live(kept, before)
        await asyncio.to_thread(postgres.stop)
        try:
            await live(kept, meanwhile)
            assert kept.trouble
            for _ in range(2):
                with pytest.raises(Unavailable):
                    await store.find(id_of(before), "me")
        finally:
            await asyncio.to_thread(postgres.start)
        await live(kept, after)
        await kept.settled(id_of(after))
        await kept.settled(id_of(meanwhile))
        for asked in (before, meanwhile, after):
            assert await is_whole(store, asked)
        assert kept.trouble is None


async def test_connections_that_died_while_nobody_used_them_are_not_noticed(
    postgres: Postgres,
) -> None:
    async with opened(postgres.database()) as store:
        asked = ask()
        async with asyncio.TaskGroup() as tasks:
            for _ in range(engine.CONNECTIONS):
                tasks.create_task(store.write([asked]))
        await asyncio.to_thread(postgres.stop)
        await asyncio.to_thread(postgres.start)
        async with asyncio.TaskGroup() as tasks:
            for _ in range(engine.CONNECTIONS):
                tasks.create_task(store.write([asked, answer(asked)]))
        assert await is_whole(store, asked)


async def test_a_server_that_is_frozen_keeps_nobody_for_long(
    postgres: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(postgres.database()) as store:
        asked = ask()
        await store.write([asked, answer(asked)])
        with postgres.frozen():
            monkeypatch.setattr(engine, "OPERATION_S", 0.2)
            for _ in range(3):
                with pytest.raises(Unavailable, match=r"^timeout$"):
                    await store.find(id_of(asked), "me")
            with pytest.raises(Unavailable, match=r"^timeout$"):
                await store.write([answer(asked)])
        monkeypatch.undo()
        assert await is_whole(store, asked)


async def test_a_server_that_only_reads_for_now_is_unavailable_for_writes(
    postgres: Postgres,
) -> None:
    url = postgres.database()
    async with opened(url) as store:
        asked = ask()
        await store.write([asked, answer(asked)])
        async with store._engine.begin() as connection:
            name = store._engine.url.database
            await connection.exec_driver_sql(
                f"ALTER DATABASE {name} SET default_transaction_read_only = on"
            )
        await store._engine.dispose()  # the setting is for new connections
        with pytest.raises(Unavailable, match=r"^SQLSTATE 25006$"):
            await store.write([ask()])
        assert await is_whole(store, asked)


async def test_nobody_listens_at_all() -> None:
    store = SqlStore("postgresql+asyncpg://u:s3cr3t@127.0.0.1:1/d")
    with pytest.raises(Unavailable) as caught:
        await store.open()
    assert "s3cr3t" not in str(caught.value)
    assert "127" not in str(caught.value)
    await store.aclose()
