"""Who is alive: each gateway process holds a lock named like its id as long as it lives.

A process that is killed lets go of its lock, whatever killed it. So a lock that somebody else can
take belongs to a dead one. Ids never come back.
"""

import asyncio
import fcntl
import hashlib
import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

from sqlalchemy import BigInteger, func, literal, select, text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from app.conversations.failures import FAILURES

# The server lets go of the lock of a machine that lost its power after about a minute. Linux's own
# values make it two hours.
_KEEPALIVE = {"tcp_keepalives_idle": 30, "tcp_keepalives_interval": 10, "tcp_keepalives_count": 3}


class WorkerLock(Protocol):
    async def keep(self) -> bool:
        """Take our lock where we do not have it (any more). Whether we had it all the time."""

    async def dead(self, workers: Sequence[str]) -> list[str]:
        """Those of ``workers`` that are not alive; none of them is ourselves."""

    async def release(self) -> None:
        """We are as good as dead."""


class FileLock:
    """``flock`` on a file for each process, in a directory next to the database's file."""

    def __init__(self, directory: Path, worker: str) -> None:
        self._directory = directory
        self._path = directory / worker
        self._file: int | None = None

    async def keep(self) -> bool:
        return await asyncio.to_thread(self._keep)

    async def dead(self, workers: Sequence[str]) -> list[str]:
        return await asyncio.to_thread(self._dead, workers)

    async def release(self) -> None:
        if self._file is not None:
            with suppress(OSError):
                self._path.unlink(missing_ok=True)
        self._let_go()

    def _keep(self) -> bool:
        if self._is_ours():
            return True
        while not self._is_ours():  # another may have looked whether we are alive, and tidied up
            self._let_go()
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            fcntl.flock(self._file, fcntl.LOCK_EX)
        return False

    def _let_go(self) -> None:
        if self._file is not None:
            file, self._file = self._file, None
            os.close(file)

    def _is_ours(self) -> bool:
        if self._file is None:
            return False
        try:
            return self._path.stat().st_ino == os.fstat(self._file).st_ino
        except FileNotFoundError:
            return False

    def _dead(self, workers: Sequence[str]) -> list[str]:
        left = {path.name for path in self._directory.iterdir()} - {self._path.name}
        alive = {name for name in left if not self._tidied(self._directory / name)}
        return [worker for worker in workers if worker not in alive]

    def _tidied(self, path: Path) -> bool:
        """Remove a dead one's file. A process makes its file before it writes its first row, so
        one that has rows and no file is dead as well."""
        try:
            file = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            return True
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.unlink(missing_ok=True)
        except BlockingIOError:
            return False
        finally:
            os.close(file)
        return True


class AdvisoryLock:
    """PostgreSQL's advisory lock of a session, on a connection that does nothing else. So a pooler
    between us must pool sessions, not transactions."""

    def __init__(self, engine: AsyncEngine, worker: str) -> None:
        self._engine = engine
        self._worker = worker
        self._session: AsyncConnection | None = None
        self._is_ours = False

    async def keep(self) -> bool:
        if self._session is not None:
            try:
                await self._session.execute(select(1))
            except FAILURES:
                await self.release()
        if self._is_ours:
            return True
        session = await self._connected()
        # Refused as long as the server has not noticed that our last session is gone.
        self._is_ours = bool(
            await session.scalar(select(func.pg_try_advisory_lock(_key(self._worker))))
        )
        return False

    async def dead(self, workers: Sequence[str]) -> list[str]:
        session = await self._connected()
        found = []
        for worker in workers:
            key = _key(worker)
            if await session.scalar(select(func.pg_try_advisory_lock(key))):
                await session.execute(select(func.pg_advisory_unlock(key)))
                found.append(worker)
        return found

    async def release(self) -> None:
        self._is_ours = False
        if self._session is not None:
            session, self._session = self._session, None
            await session.invalidate()  # not back to the pool, where the lock would live on
            await session.close()

    async def _connected(self) -> AsyncConnection:
        if self._session is None:
            session = self._engine.execution_options(isolation_level="AUTOCOMMIT").connect()
            self._session = await session.start()
            for name, seconds in _KEEPALIVE.items():
                await self._session.execute(text(f"SET {name} = {seconds}"))
        return self._session


def _key(worker: str) -> Any:
    """Advisory locks have numbers of 64 bits, shared by all that use the database."""
    digest = hashlib.blake2b(f"sse-gateway worker {worker}".encode(), digest_size=8).digest()
    return literal(int.from_bytes(digest, signed=True), BigInteger)
