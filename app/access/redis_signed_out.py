"""Signed-out sessions that all workers know, on all machines, in a sorted set of Redis.

Each worker keeps a copy in memory, so that no request waits for Redis: another worker's news is
here after ``READ_S``. While Redis is away a session is signed out on its own worker only; the
others hear of it when Redis is back. After Redis came back empty each worker writes what it has.
"""

import asyncio
import logging
from collections import OrderedDict
from contextlib import suppress
from typing import NoReturn

from app.access.signed_out import KEPT, SESSION_S, MemorySignedOut, SignedOut
from app.errors import StoreAway
from app.events.redis_link import Link, Script

logger = logging.getLogger(__name__)

READ_S = 2.0
AT_ONCE = 500  # sessions in one call: a millisecond for either side
PAUSE_S = 1.0  # after a bug

# Scores are milliseconds of Redis's clock, but each one above the last, so that whoever has read
# up to one has read all up to it. KEYS: signed out. ARGV: milliseconds until one is forgotten, how
# many are kept at most, session ids.
_ADD = Script("""
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local top = redis.call('ZRANGE', KEYS[1], 0, 0, 'REV', 'WITHSCORES')
local score = math.max(now, tonumber(top[2] or 0) + 1)
for i = 3, #ARGV do
  score = score + redis.call('ZADD', KEYS[1], 'NX', score, ARGV[i])
end
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now - ARGV[1])
redis.call('ZREMRANGEBYRANK', KEYS[1], 0, -ARGV[2] - 1)
redis.call('PEXPIRE', KEYS[1], ARGV[1])
""")


class RedisSignedOut:
    def __init__(self, link: Link) -> None:
        self._link = link
        self._name = f"{link.keys.prefix}:signed_out"
        self._known = MemorySignedOut()
        self._unsaid = OrderedDict[str, None]()  # those that Redis may not have
        self._read_to = "-inf"  # the highest score that we have seen
        self._work = asyncio.Event()
        link.on_return(self._returned)

    def add(self, session_id: str) -> None:
        self._known.add(session_id)
        self._unsaid[session_id] = None
        if len(self._unsaid) > KEPT:
            self._unsaid.popitem(last=False)
        self._work.set()

    def __contains__(self, session_id: str) -> bool:
        return session_id in self._known

    async def run(self) -> NoReturn:
        """Tells the others, and hears of theirs, until cancelled."""
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(READ_S):
                    await self._work.wait()
            self._work.clear()
            try:
                await self._tell()
                await self._hear()
            except StoreAway:
                pass  # the link says so, and when it is back
            except Exception:
                logger.exception("sharing signed-out sessions met a bug")
                await asyncio.sleep(PAUSE_S)

    def _returned(self) -> None:
        """Redis may have forgotten all, and may count anew."""
        self._unsaid = OrderedDict.fromkeys(self._known.all())
        self._read_to = "-inf"
        self._work.set()

    async def _tell(self) -> None:
        """Raises ``StoreAway``."""
        while self._unsaid:
            some = [session for session, _ in zip(self._unsaid, range(AT_ONCE), strict=False)]
            keep_ms = round(SESSION_S * 1000)
            await self._link.script(_ADD, [self._name], keep_ms, KEPT, *some)
            for session_id in some:
                self._unsaid.pop(session_id, None)

    async def _hear(self) -> None:
        """Raises ``StoreAway``."""
        page = None
        while page is None or len(page) == 2 * AT_ONCE:
            since = self._read_to
            page = await self._link.call(
                "ZRANGEBYSCORE", self._name, since, "+inf", "WITHSCORES", "LIMIT", 0, AT_ONCE
            )
            if since != self._read_to:
                break  # Redis came back meanwhile: from the beginning again
            for session_id in page[::2]:
                self._known.add(session_id.decode())
            if page:
                self._read_to = "(" + page[-1].decode()


_: type[SignedOut] = RedisSignedOut  # the type checker proves the promise is kept
