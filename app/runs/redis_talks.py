"""Who talks in which conversation, in Redis: one string for each, as long as its run may live.

After Redis came back empty each worker writes again what it holds. Until all had time for that
nobody can be sure that a conversation is free, so nobody gets one.
"""

from collections.abc import Callable

from app.errors import StoreAway
from app.events.redis_link import Link
from app.events.redis_scripts import CLAIM, KEEP
from app.events.redis_wire import Command
from app.runs.neighbours import Talker, Talks


class RedisTalks:
    """``keep_s``: longer than any run lives. ``wake``: there is something to ``flush``."""

    def __init__(self, link: Link, keep_s: float, wake: Callable[[], None]) -> None:
        self._link = link
        self._keep_ms = round(keep_s * 1000)
        self._wake = wake
        self._ours: dict[str, str] = {}  # key: run id
        self._released: dict[tuple[str, str], None] = {}  # key and run id, in order
        self._is_forgotten = False

    async def talker(self, owner: str, conversation_id: str) -> Talker | None:
        key = self._link.keys.talk(owner, conversation_id)
        run_id = await self._link.call("GET", key)
        return await self._talker(key, run_id.decode()) if run_id else None

    async def claim(
        self, owner: str, conversation_id: str, run_id: str, instead_of: str | None
    ) -> Talker | None:
        if self._link.unsettled():
            raise StoreAway
        key = self._link.keys.talk(owner, conversation_id)
        held = await self._link.script(CLAIM, [key], run_id, self._keep_ms, instead_of or "")
        if held.decode() == run_id:
            self._ours[key] = run_id
            return None
        return await self._talker(key, held.decode())

    def release(self, owner: str, conversation_id: str, run_id: str) -> None:
        key = self._link.keys.talk(owner, conversation_id)
        if self._ours.get(key) == run_id:
            del self._ours[key]
        self._released[key, run_id] = None
        self._wake()

    async def _talker(self, key: str, run_id: str) -> Talker:
        left_ms = await self._link.call("PTTL", key)  # below 0: it was just given back
        return Talker(run_id, max(0, self._keep_ms - max(0, left_ms)) / 1000)

    def forgotten(self) -> None:
        """What we hold may be gone from Redis."""
        self._is_forgotten = True

    async def flush(self) -> None:
        """Raises ``StoreAway``: then it is to be done again."""
        released, is_forgotten = list(self._released), self._is_forgotten
        commands: list[Command] = [KEEP.command([key], run_id, 0) for key, run_id in released]
        if is_forgotten:
            commands += [
                ("SET", key, run_id, "NX", "PX", self._keep_ms)
                for key, run_id in self._ours.items()
            ]
        if not commands:
            return
        self._is_forgotten = False
        try:
            await self._link.calls(commands)
        except StoreAway:
            self._is_forgotten |= is_forgotten
            raise
        for each in released:
            del self._released[each]


_: type[Talks] = RedisTalks  # the type checker proves the promise is kept
