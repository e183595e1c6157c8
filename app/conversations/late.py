"""A store that is opened behind the port: its libraries take a while to import, and its database
may be away when the gateway starts."""

import asyncio
import logging
import random
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Protocol

from app.conversations.model import Conversation, Message, Thread, Write
from app.conversations.store import Archive, Library, Place, Unavailable
from app.settings import SettingsError

logger = logging.getLogger(__name__)

# How long who wants something waits for the first try to open it; later ones nobody waits for.
OPENING_WAIT_S = 5.0
# Between two tries to open it, with full jitter. Seconds.
RETRY_S = (0.2, 5.0)


class Store(Library, Archive, Protocol):
    async def open(self) -> None:
        """Raises ``Unavailable``; ``SettingsError`` where trying again is no use."""

    async def tend(self) -> None:
        """For as long as the store is open."""

    async def aclose(self) -> None: ...


class LateStore:
    """``trouble``: why it is not open, None once it is."""

    def __init__(self, build: Callable[[], Store]) -> None:
        self._build = build
        self._store: Store | None = None
        self._was_tried = asyncio.Event()
        self.trouble: str | None = "opening"

    async def load(self) -> None:
        """Build the store, in a thread: that imports its libraries."""
        try:
            self._store = await asyncio.to_thread(self._build)
        except Exception:
            self._tried("broken")
            logger.exception("conversations cannot be kept")

    async def run(self) -> None:
        """Once it is loaded: open the store, however long that takes, and tend it."""
        if self._store is None:
            return
        try:
            await self._open(self._store)
        except SettingsError as error:
            self._tried("broken")
            logger.error("conversations cannot be kept: %s", error)  # noqa: TRY400  # one line
            return
        except Exception:
            self._tried("broken")
            logger.exception("conversations cannot be kept")
            return
        self._tried(None)
        await self._store.tend()

    async def _open(self, store: Store) -> None:
        pause, longest = RETRY_S
        while True:
            try:
                return await store.open()
            except Unavailable as error:
                self._tried(str(error) or "unavailable")
                logger.warning("the database cannot be opened yet: %s", self.trouble)
            await asyncio.sleep(random.uniform(0, pause))
            pause = min(2 * pause, longest)

    async def aclose(self) -> None:
        if self._store is not None:
            await self._store.aclose()

    async def page(self, owner: str, behind: Place | None, limit: int) -> Sequence[Conversation]:
        return await (await self._ready()).page(owner, behind, limit)

    async def find(self, conversation_id: str, owner: str) -> Thread | None:
        return await (await self._ready()).find(conversation_id, owner)

    async def rename(self, conversation_id: str, owner: str, title: str) -> bool:
        return await (await self._ready()).rename(conversation_id, owner, title)

    async def delete(self, conversation_id: str, owner: str) -> bool:
        return await (await self._ready()).delete(conversation_id, owner)

    async def branch(
        self, conversation_id: str, owner: str, leaf_id: str | None, newest: int
    ) -> Sequence[Message] | None:
        return await (await self._ready()).branch(conversation_id, owner, leaf_id, newest)

    async def write(self, writes: Sequence[Write]) -> None:
        await (await self._ready()).write(writes)

    def _tried(self, trouble: str | None) -> None:
        self.trouble = trouble
        self._was_tried.set()

    async def _ready(self) -> Store:
        with suppress(TimeoutError):
            async with asyncio.timeout(OPENING_WAIT_S):
                await self._was_tried.wait()
        if self._store is None or self.trouble is not None:
            raise Unavailable(self.trouble)
        return self._store


_: type[Library] = LateStore
__: type[Archive] = LateStore
