"""The schema and how a database comes to it; on both databases."""

import asyncio
from contextlib import ExitStack
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, inspect, text

from app.conversations import migrate, schema
from app.conversations.engine import make_engine
from app.conversations.sql import SqlStore
from app.conversations.url import database_url
from app.settings import Settings, SettingsError
from tests.conversations.other import OtherGateway

pytestmark = pytest.mark.anyio
BOUND_S = 60


async def on(url: str, *statements: str) -> None:
    engine = make_engine(url)
    async with engine.begin() as connection:
        for statement in statements:
            await connection.execute(text(statement))
    await engine.dispose()


async def tables(url: str) -> set[str]:
    engine = make_engine(url)
    async with engine.begin() as connection:
        names = await connection.run_sync(lambda sync: inspect(sync).get_table_names())
    await engine.dispose()
    return set(names)


async def test_what_the_migrations_make_is_what_the_code_expects(url: str, store: SqlStore) -> None:
    def differences(connection: Connection) -> object:
        context = MigrationContext.configure(connection, opts={"compare_server_default": True})
        return compare_metadata(context, schema.metadata)

    engine = make_engine(url)
    async with asyncio.timeout(BOUND_S), engine.begin() as connection:
        assert await connection.run_sync(differences) == []
        made = await connection.run_sync(lambda sync: inspect(sync).get_indexes("messages"))
    await engine.dispose()
    assert {str(index["name"]) for index in made} >= {
        str(index.name) for index in schema.messages.indexes
    }


def test_the_newest_revision_is_the_one_that_the_code_looks_for() -> None:
    scripts = ScriptDirectory(str(Path(migrate.__file__).parent / "migrations"))
    assert scripts.get_current_head() == schema.HEAD


async def test_gateways_that_start_at_once_on_an_empty_database_all_start(
    url: str, tmp_path: Path
) -> None:
    with ExitStack() as stack:
        others = [OtherGateway(url, tmp_path) for _ in range(5)]
        for other in others:
            stack.callback(other.stop)
        assert len({await other.asked() for other in others}) == 5


def test_a_gateway_on_a_database_that_is_up_to_date_does_without_alembic(
    url: str, tmp_path: Path
) -> None:
    for imported in ("True", "False"):
        other = OtherGateway(url, tmp_path)
        try:
            assert other.find(r"^migrated (\w+)$") == imported
        finally:
            other.stop()


async def test_a_database_of_a_newer_version_is_refused_in_one_line(url: str) -> None:
    async with asyncio.timeout(BOUND_S):
        old = SqlStore(url)
        await old.open()
        await old.aclose()
        await on(url, "UPDATE alembic_version SET version_num = '9999'")
        store = SqlStore(url)
        with pytest.raises(SettingsError, match=r"^GATEWAY_DATABASE_URL [^\n]+ 9999|'9999'"):
            await store.open()
        await store.aclose()


async def test_a_migration_that_fails_leaves_nothing_behind(url: str) -> None:
    async with asyncio.timeout(BOUND_S):
        await on(url, "CREATE TABLE messages (foreign_to_us INTEGER)")
        store = SqlStore(url)
        with pytest.raises(Exception, match="messages"):
            await store.open()
        assert await tables(url) == {"messages"}
        await on(url, "DROP TABLE messages")
        await store.open()
        assert await tables(url) == {"alembic_version", "conversations", "messages"}
        await store.aclose()


async def test_nobody_else_may_look_into_the_directory_of_the_locks(tmp_path: Path) -> None:
    data = tmp_path / "50% ?#"
    async with asyncio.timeout(BOUND_S):
        store = SqlStore(database_url(Settings.model_validate({"data_dir": data})))
        await store.open()
        locks = data / "gateway.db.workers"
        assert locks.stat().st_mode & 0o077 == 0
        await store.aclose()
        assert list(locks.iterdir()) == [], "who leaves tidies up"
