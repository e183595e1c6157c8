"""What others publish in Redis, heard on one connection for all listeners of this worker.

Redis confirms in the order in which it was asked. So who asked stands in a queue, and a
confirmation is credited to that one, not to who listens under the same name by then.
"""

import asyncio
import logging
import random
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, NoReturn, Protocol

from app.events.redis_link import CALL_S, RETRY_S, Link
from app.events.redis_wire import FAILURES, ErrorReply, matter

logger = logging.getLogger(__name__)

PING_S = 5.0  # of silence, then a PING; as long again, then a new connection
JITTER_S = (0.0, 0.2)  # before a new connection, where the last one was of use


class Listener(Protocol):
    def subscribed(self) -> None:
        """What is published from now on is heard; what was before may be missing. Again after
        each reconnect."""

    def heard(self, message: bytes) -> None: ...

    def deaf(self) -> None:
        """The connection is lost; ``subscribed`` comes again."""


@dataclass(frozen=True, slots=True, eq=False)
class _Subscription:
    """A new one each time, so that one generation of a name differs from the next."""

    listener: Listener


class Channel:
    def __init__(self, link: Link) -> None:
        self._link = link
        self._wire = link.wire()
        self._wanted: dict[bytes, _Subscription] = {}
        # Of this connection: what Redis was asked for last, all that it has to confirm yet (None:
        # the end of one), and what it has confirmed and is still wanted.
        self._asked: dict[bytes, _Subscription] = {}
        self._awaited: deque[tuple[bytes, _Subscription | None]] = deque()
        self._live: dict[bytes, _Subscription] = {}
        self._changed: set[bytes] = set()
        self._is_up = False

    def subscribe(self, name: str, listener: Listener) -> None:
        """In place of who listened under that name."""
        self._want(name.encode(), _Subscription(listener))

    def unsubscribe(self, name: str) -> None:
        self._want(name.encode(), None)

    async def run(self) -> NoReturn:
        """Listens; opens a new connection when one is lost."""
        while True:
            await self._link.reachable()
            try:
                async with asyncio.timeout(CALL_S):
                    await self._wire.open()
                self._begin()
                await self._listen()
            except FAILURES as error:
                logger.warning("messages from Redis cannot be heard: %s", matter(error))
            finally:
                was_of_use = self._lose()
            await asyncio.sleep(random.uniform(*(JITTER_S if was_of_use else RETRY_S)))

    def _want(self, name: bytes, subscription: _Subscription | None) -> None:
        if subscription is not None:
            self._wanted[name] = subscription
        elif self._wanted.pop(name, None) is None:
            return
        self._live.pop(name, None)
        if self._is_up:
            if not self._changed:  # all of one pass of the loop go out together
                asyncio.get_running_loop().call_soon(self._ask)
            self._changed.add(name)

    def _ask(self) -> None:
        changed, self._changed = self._changed, set()
        begun, ended = [], []
        for name in changed:
            subscription = self._wanted.get(name)
            if subscription is not None:
                begun.append(name)
                self._asked[name] = subscription
            elif self._asked.pop(name, None) is not None:
                ended.append(name)
        self._awaited += [(name, self._asked.get(name)) for name in (*begun, *ended)]
        with suppress(ConnectionResetError):  # whoever listens finds out
            if begun:
                self._wire.send([("SUBSCRIBE", *begun)])
            if ended:
                self._wire.send([("UNSUBSCRIBE", *ended)])

    def _begin(self) -> None:
        self._is_up = True
        self._changed = set(self._wanted)
        self._ask()

    def _lose(self) -> bool:
        """Whether the connection was of use to anybody."""
        self._is_up = False
        self._wire.close()
        live, self._live = self._live, {}
        self._asked, self._changed = {}, set()
        self._awaited.clear()
        for name, subscription in live.items():
            if self._wanted.get(name) is subscription:
                _tell(subscription.listener.deaf)
        return bool(live)

    async def _listen(self) -> NoReturn:
        is_asked = False
        while True:
            try:
                async with asyncio.timeout(PING_S):
                    answers = await self._wire.receive()
            except TimeoutError:
                if is_asked:
                    raise
                is_asked = True
                self._wire.send([("PING",)])
                continue
            is_asked = False
            for answer in answers:
                self._take(answer)

    def _take(self, answer: Any) -> None:
        if isinstance(answer, ErrorReply):
            raise answer
        if answer[0] == b"message":
            subscription = self._live.get(answer[1])
            if subscription is not None:
                _tell(subscription.listener.heard, answer[2])
        elif answer[0] in (b"subscribe", b"unsubscribe"):  # else PONG, in one of its two shapes
            self._confirm()

    def _confirm(self) -> None:
        name, subscription = self._awaited.popleft()
        if subscription is not None and self._wanted.get(name) is subscription:
            self._live[name] = subscription
            _tell(subscription.listener.subscribed)


def _tell(callback: Callable[..., None], *arguments: bytes) -> None:
    """A bug of one listener is no other one's trouble."""
    try:
        callback(*arguments)
    except Exception:
        logger.exception("a listener to Redis's messages has failed")
