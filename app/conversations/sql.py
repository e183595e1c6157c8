"""Conversations in SQLite or PostgreSQL. Slow to import (0.2 s): only the composition root does."""

import asyncio
import logging
import os
import secrets
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from app.conversations import statements
from app.conversations.batch import Batch
from app.conversations.content import decode
from app.conversations.engine import OPERATION_S, bounded, in_transaction, make_engine
from app.conversations.migrate import is_current, upgrade
from app.conversations.model import Conversation, Message, Thread, Write
from app.conversations.store import Archive, Library, Place, Unavailable
from app.conversations.workers import AdvisoryLock, FileLock, WorkerLock

T = TypeVar("T")
logger = logging.getLogger(__name__)

UPGRADE_S = 600.0  # the first start of a new version may rewrite tables, or wait for who does
KEEP_S = 5.0  # between two looks whether our lock is still ours
SWEEP_S = 30.0  # between two looks for runs whose gateway is gone


class SqlStore:
    """``url``: see ``database_url``. Until it is open every method raises ``Unavailable``."""

    def __init__(self, url: str) -> None:
        self._engine = make_engine(url)
        self._worker = secrets.token_urlsafe(16)
        self._lock = _lock(self._engine, self._worker)
        self._begin = statements.begin(self._engine.dialect.name)
        self._ask = statements.ask(self._engine.dialect.name)
        self._is_open = False

    # -- life -------------------------------------------------------------------------------

    async def open(self) -> None:
        """Bring the schema up to date, and mark as failed the runs of gateways that are gone.

        Raises ``Unavailable``: try again later. Raises ``SettingsError`` where that is no use.
        """
        _make_private(self._engine)
        if not await bounded(OPERATION_S, lambda: is_current(self._engine)):
            await bounded(UPGRADE_S, lambda: upgrade(self._engine))
        await bounded(OPERATION_S, self._lock.keep)
        self._is_open = True
        await self.sweep()

    async def tend(self) -> NoReturn:
        """For ever: hold our lock, and look after the runs of gateways that have died."""
        clock = asyncio.get_running_loop().time
        swept = clock() - SWEEP_S  # soon: who died just before us may not have been noticed yet
        while True:
            await asyncio.sleep(KEEP_S)
            try:
                if not await bounded(OPERATION_S, self._lock.keep):
                    # The others may have lost theirs too: they get time before they are judged.
                    swept = clock()
                elif clock() - swept >= SWEEP_S:
                    await self.sweep()
                    swept = clock()
            except Unavailable as error:
                swept = clock()
                logger.debug("the database does not answer: %s", error)
            except Exception:
                logger.exception("looking for runs of dead gateways met a bug")

    async def sweep(self) -> int:
        """Mark the running runs of gateways that are gone as failed; how many there were."""

        async def work(connection: AsyncConnection) -> int:
            running = set(await connection.scalars(statements.WORKERS)) - {self._worker}
            dead = await self._lock.dead(list(running))
            if not dead:
                return 0
            result = await connection.execute(statements.ABANDON, {"the_workers": dead})
            return result.rowcount

        count = await self._do(work)
        if count:
            logger.warning("%d answers were cut off when their gateway died", count)
        return count

    async def aclose(self) -> None:
        self._is_open = False
        try:
            async with asyncio.timeout(OPERATION_S):
                await self._lock.release()
                await self._engine.dispose()
        except Exception as error:  # noqa: BLE001  we leave; whatever is left open ends with us
            logger.warning("the database was left in a hurry: %s", type(error).__name__)

    # -- Library ----------------------------------------------------------------------------

    async def page(self, owner: str, behind: Place | None, limit: int) -> Sequence[Conversation]:
        values: dict[str, Any] = {"the_owner": owner, "the_limit": limit}
        statement = statements.FIRST_PAGE
        if behind is not None:
            if not _is_possible(behind.id):
                return []
            statement = statements.NEXT_PAGE
            values |= {"the_updated_at": behind.updated_at, "the_id": behind.id}

        async def work(connection: AsyncConnection) -> list[Conversation]:
            return [Conversation(*row) for row in await connection.execute(statement, values)]

        return await self._do(work)

    async def find(self, conversation_id: str, owner: str) -> Thread | None:
        if not _is_possible(conversation_id):
            return None
        values = {"the_conversation_id": conversation_id, "the_owner": owner}

        async def work(connection: AsyncConnection) -> Thread | None:
            found = (await connection.execute(statements.CONVERSATION, values)).first()
            if found is None:
                return None
            rows = (await connection.execute(statements.MESSAGES, values)).all()
            if not rows:  # it was deleted between the two
                return None
            return Thread(Conversation(*found), tuple(map(_message, rows)))

        return await self._do(work)

    async def rename(self, conversation_id: str, owner: str, title: str) -> bool:
        return await self._changes(statements.RENAME, conversation_id, owner, the_title=title)

    async def delete(self, conversation_id: str, owner: str) -> bool:
        return await self._changes(statements.DELETE, conversation_id, owner)

    # -- Archive ----------------------------------------------------------------------------

    async def branch(
        self, conversation_id: str, owner: str, leaf_id: str | None, newest: int
    ) -> Sequence[Message] | None:
        if not _is_possible(conversation_id) or not _is_possible(leaf_id or ""):
            return None
        values = {
            "the_conversation_id": conversation_id,
            "the_owner": owner,
            "the_leaf_id": leaf_id,
            "the_newest": newest,
        }

        async def work(connection: AsyncConnection) -> list[Message] | None:
            rows = await connection.execute(statements.BRANCH, values)
            return [_message(row) for row in rows] or None

        return await self._do(work)

    async def write(self, writes: Sequence[Write]) -> None:
        batch = Batch(writes, self._worker)

        async def work(connection: AsyncConnection) -> None:
            for statement, rows in (
                (self._begin, batch.begun),
                (statements.CONTINUE, batch.continued),
                (self._ask, batch.asked),
                (statements.ANSWER, batch.answered),
                (statements.ANSWER_LOST, batch.lost),
            ):
                if rows:
                    await connection.execute(statement, rows)

        await self._do(work)

    # ---------------------------------------------------------------------------------------

    async def _changes(
        self, statement: Any, conversation_id: str, owner: str, **values: str
    ) -> bool:
        if not _is_possible(conversation_id):
            return False
        values |= {"the_conversation_id": conversation_id, "the_owner": owner}

        async def work(connection: AsyncConnection) -> bool:
            return (await connection.execute(statement, values)).rowcount > 0

        return await self._do(work)

    async def _do(self, work: Callable[[AsyncConnection], Awaitable[T]]) -> T:
        if not self._is_open:
            raise Unavailable("not open yet")
        return await in_transaction(self._engine, work)


_library: type[Library] = SqlStore  # the type checker proves the promises are kept
_archive: type[Archive] = SqlStore


def _lock(engine: AsyncEngine, worker: str) -> WorkerLock:
    if engine.dialect.name == "postgresql":
        return AdvisoryLock(engine, worker)
    return FileLock(Path(f"{engine.url.database}.workers"), worker)


def _make_private(engine: AsyncEngine) -> None:
    """SQLite would make its file with mode 0644. Those of its log take over the mode of this one.

    O_EXCL: closing a file that is in use would take away SQLite's locks on it.
    """
    if engine.dialect.name == "sqlite" and engine.url.database:
        path = os.path.realpath(engine.url.database)
        with suppress(OSError):  # it exists; or it cannot be made, as SQLite will tell
            os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))


def _message(row: Any) -> Message:
    id_, conversation_id, parent_id, role, status, created_at, run_id, column = row
    content = decode(column)
    return Message(
        id=id_,
        conversation_id=conversation_id,
        parent_id=parent_id,
        role=role,
        text=content.text,
        status=status,
        created_at=created_at,
        run_id=run_id,
        model=content.model,
        usage=content.usage,
        reasoning=content.reasoning,
        steps=content.steps,
    )


def _is_possible(id_: str) -> bool:
    """An id from a caller that no database could even look up is one that does not exist."""
    return "\0" not in id_ and not any("\ud800" <= character <= "\udfff" for character in id_)
