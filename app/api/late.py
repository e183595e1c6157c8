"""A stream that was asked for while the shared store cannot be reached: heartbeats until it can.

Nothing is known of the run meanwhile: not whether it is there, nor whose it is, nor what its reader
wants to see. Once it is found it is followed as if it had been there from the beginning; what would
have been an error then ends the body without ``done``, so that the reader comes back and learns it.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable

from starlette.types import Receive, Send

from app.api.stream import Body, StreamBody
from app.errors import GatewayError, StoreAway
from app.events.model import Snapshot
from app.wire.native import HEARTBEAT

AWAY_S = 30.0  # contract section 5
# From one look to the next, jittered: those that wait do not ask a store that is back all at once.
LOOK_S = (0.5, 1.5)
_BEAT = {"type": "http.response.body", "body": HEARTBEAT, "more_body": True}


class LateBody:
    """Counts as a reader from when the run is found. ``find``: of the caller's runs, raises
    ``GatewayError``. ``follow`` makes the body, raises ``GatewayError`` too."""

    def __init__(
        self,
        run_id: str,
        find: Callable[[], Awaitable[Snapshot]],
        follow: Callable[[Snapshot], Body],
        heartbeat_s: float,
        away_s: float = AWAY_S,
    ) -> None:
        self.run_id = run_id
        self._find = find
        self._follow = follow
        self._heartbeat_s = heartbeat_s
        self._away_s = away_s

    async def __call__(self, receive: Receive, send: Send) -> None:
        async with asyncio.TaskGroup() as tasks:
            looking = tasks.create_task(self._look())
            beating = tasks.create_task(self._beat(send))
            leaving = tasks.create_task(_left(receive))
            await asyncio.wait({looking, leaving}, return_when=asyncio.FIRST_COMPLETED)
            for task in (looking, beating, leaving):
                task.cancel()
        if looking.cancelled():
            return
        await send(_BEAT)  # the body counts its own silence from here
        body = self._body(looking.result())
        if body is None:
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        else:
            await body(receive, send)

    def abandon(self) -> None:
        """The reader came and left, and nobody knows whose run it wanted to read."""

    def _body(self, snapshot: Snapshot | None) -> Body | None:
        try:
            return self._follow(snapshot) if snapshot else None
        except GatewayError:
            return None

    async def _look(self) -> Snapshot | None:
        try:
            async with asyncio.timeout(self._away_s):
                while True:
                    try:
                        return await self._find()
                    except StoreAway:
                        await asyncio.sleep(random.uniform(*LOOK_S))
        except (GatewayError, TimeoutError):
            return None

    async def _beat(self, send: Send) -> None:
        while True:
            await asyncio.sleep(self._heartbeat_s)
            await send(_BEAT)


async def _left(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


_: type[StreamBody] = LateBody  # the type checker proves the promise is kept
