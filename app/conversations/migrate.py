"""Brings a database to the schema of this version, under a lock, in one transaction."""

import asyncio
from importlib import import_module
from pathlib import Path

from sqlalchemy import Connection, inspect, text
from sqlalchemy.ext.asyncio import AsyncEngine

from app.conversations.schema import HEAD
from app.settings import SettingsError

# Two gateways that start at once: the second one waits, and finds that nothing is left to do.
# PostgreSQL's number is any that nobody else is likely to take ("gateway" in ASCII).
_LOCK = {
    "sqlite": "BEGIN IMMEDIATE",
    "postgresql": f"SELECT pg_advisory_xact_lock({int.from_bytes(b'gateway')})",
}


async def is_current(engine: AsyncEngine) -> bool:
    async with engine.connect() as connection:
        if not await connection.run_sync(lambda sync: inspect(sync).has_table("alembic_version")):
            return False
        return bool(
            await connection.scalar(text("SELECT version_num FROM alembic_version")) == HEAD
        )


async def upgrade(engine: AsyncEngine) -> None:
    """Raises ``SettingsError`` for a database that a newer gateway has written."""
    # A third of this store's import, and needed once in a schema's life; in a thread, because
    # others run here.
    await asyncio.to_thread(import_module, "alembic.command")
    async with engine.connect() as connection:
        await connection.exec_driver_sql(_LOCK[engine.dialect.name])
        await connection.run_sync(_run)
        await connection.commit()


def _run(connection: Connection) -> None:
    # Here, because who is up to date does without it.
    from alembic import command
    from alembic.config import Config
    from alembic.util import CommandError

    config = Config(attributes={"connection": connection})
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    try:
        command.upgrade(config, "head")
    except CommandError as error:
        raise SettingsError(
            "GATEWAY_DATABASE_URL leads to a database that another version of this gateway has "
            f"written: {error}"
        ) from error
