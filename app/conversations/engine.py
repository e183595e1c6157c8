"""The engine for either database, and what all its uses have in common.

1. A connection is not rolled back when it goes back to the pool: every use is a transaction with
   an end of its own, and SQLite's thread is spared an errand in each.
2. What fails with a dead connection is tried once more at once: after a restart of the server all
   that were kept are dead. Everything that is done here can be done twice.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from app.conversations.failures import FAILURES, is_lost, passing
from app.conversations.store import Unavailable

T = TypeVar("T")

OPERATION_S = 5.0  # a server that is frozen hangs nobody for much longer
LOCKED_S = 4.0  # SQLite: another process writes. Below OPERATION_S, so that it says what it was
CONNECTIONS = 6  # SQLite has a thread for each; one of PostgreSQL's holds the lock

_PRAGMAS = (
    f"busy_timeout = {round(LOCKED_S * 1000)}",
    "journal_mode = WAL",  # readers and the writer do not wait for each other
    "synchronous = NORMAL",  # in WAL nothing breaks; a power cut may cost the last seconds
    "foreign_keys = ON",
)


def make_engine(url: str) -> AsyncEngine:
    """``url``: see ``database_url``. Connects to nothing yet."""
    engine = create_async_engine(
        url,
        pool_size=CONNECTIONS,
        max_overflow=0,
        pool_timeout=OPERATION_S,
        pool_use_lifo=True,  # the connection that was just used has its statements ready
        pool_reset_on_return=None,  # 1.
        hide_parameters=True,  # or errors would show what people wrote
    )
    if engine.dialect.name == "sqlite":
        event.listen(engine.sync_engine, "connect", _configure)
    return engine


async def in_transaction(engine: AsyncEngine, work: Callable[[AsyncConnection], Awaitable[T]]) -> T:
    """Raises ``Unavailable``."""
    return await bounded(OPERATION_S, lambda: _attempt(engine, work))


async def bounded(seconds: float, work: Callable[[], Awaitable[T]]) -> T:
    """Raises ``Unavailable`` for what may pass, and when the time is over."""
    try:
        async with asyncio.timeout(seconds):
            return await work()
    except FAILURES as error:
        if (kind := passing(error)) is None:
            raise
        raise Unavailable(kind) from error


async def _attempt(engine: AsyncEngine, work: Callable[[AsyncConnection], Awaitable[T]]) -> T:
    try:
        async with engine.begin() as connection:
            return await work(connection)
    except FAILURES as error:
        if not is_lost(error):
            raise
    async with engine.begin() as connection:  # 2.
        return await work(connection)


def _configure(connection: Any, _record: object) -> None:
    cursor = connection.cursor()
    for pragma in _PRAGMAS:
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()
