"""This worker's connections to Redis, and what is known of it.

While Redis is away nobody waits for it: after the first failure anywhere all callers are refused
at once, and only the pulse looks whether it is back.
"""

import asyncio
import hashlib
import logging
import math
import random
import re
import secrets
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, ClassVar, NoReturn

from app.errors import StoreAway
from app.events.redis_keys import Keys
from app.events.redis_wire import FAILURES, Address, Command, ErrorReply, Wire, matter

logger = logging.getLogger(__name__)

CALL_S = 2.0  # for an answer, with opening a connection and waiting for a free one
POOL = 8  # connections at once; one for the writer and one for the pulse come on top
PULSE_S = 1.0
# Before the first try after a failure, and between two others: so that the workers of many machines
# do not all come at once.
FIRST_RETRY_S = (0.0, 0.1)
RETRY_S = (0.1, 1.0)
# Nothing heard for so long, although the pulse beats: this process itself stood still.
BREAK_S = 4.0
# After Redis came back empty, workers need so long to write again what they have.
SETTLE_S = 4.0
_RUN_ID = re.compile(rb"run_id:(\w+)")


class Script:
    """A Lua script. Redis is told of all there are whenever it can be reached again."""

    known: ClassVar[list["Script"]] = []

    def __init__(self, text: str) -> None:
        self.text = text
        self.sha = hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()
        Script.known.append(self)

    def command(self, keys: Sequence[str], *arguments: str | bytes | int) -> Command:
        """For ``Link.calls`` and ``Link.write``."""
        return ("EVALSHA", self.sha, len(keys), *keys, *arguments)


class Link:
    """All calls raise ``StoreAway``: at once while there is ``trouble``, after ``CALL_S`` without
    an answer, and where the connection or Redis itself fails. What was asked may have been done
    all the same; nothing is asked twice.

    ``trouble``: why Redis cannot be used just now, in a word or two without its address; None if
    it can. ``last_contact``: when the last answer came, monotonic time (s) as the loop has it.
    """

    def __init__(self, url: str) -> None:
        """Connects to nothing yet. Raises ``ValueError``."""
        self._address = Address(url)
        self.keys = Keys(self._address.prefix)
        self.trouble: str | None = "connecting"
        self.last_contact = -math.inf
        self._since = 0.0
        self._forgot = -math.inf
        self._back = -math.inf
        self._mark: bytes | None = None
        self._server: list[bytes] = []  # its own id, new with each start
        self._is_back = asyncio.Event()
        self._has_failed = asyncio.Event()
        self._callbacks: list[Callable[[], None]] = []
        self._told: set[Script] = set()
        self._failures = 0
        self._slots = asyncio.Semaphore(POOL)
        self._turn = asyncio.Semaphore(1)
        self._idle: list[Wire] = []
        self._writer = self.wire()
        # Never idle for long, so nobody closes it to save connections: without it Redis is gone,
        # and may have lost everything by the time another connection finds it again.
        self._pulse = Wire(self._address, lost=lambda: self._fail("connection lost"))

    def connected_s(self) -> float:
        """For how long Redis has answered without a break; 0 while it is away."""
        now = time.monotonic()
        is_broken = self.trouble is not None or now - self.last_contact > BREAK_S
        return 0.0 if is_broken else now - self._since

    def back_s(self) -> float:
        """For how long it can be reached again; 0 while it is away, infinite if it never was."""
        return 0.0 if self.trouble is not None else time.monotonic() - self._back

    def unsettled(self) -> bool:
        """Redis was restarted a moment ago: what is not found may be about to be written again."""
        return time.monotonic() - self._forgot < SETTLE_S

    def on_return(self, callback: Callable[[], None]) -> None:
        """Called each time Redis can be reached again, the first time too, and where its data is
        suddenly gone."""
        self._callbacks.append(callback)

    async def reachable(self) -> None:
        """Returns as soon as there is no trouble."""
        await self._is_back.wait()

    def wire(self) -> Wire:
        """A connection of the caller's own, not open yet."""
        return Wire(self._address)

    async def call(self, *command: str | bytes | int) -> Any:
        """One command. Where Redis refuses it that is logged, and ``StoreAway`` too."""
        answer = (await self.calls([command]))[0]
        if isinstance(answer, ErrorReply):
            logger.error("Redis refused a command: %s", answer)
            raise StoreAway from answer
        return answer

    async def script(
        self, script: Script, keys: Sequence[str], *arguments: str | bytes | int
    ) -> Any:
        """As ``call``."""
        if script in self._told:
            return await self.call(*script.command(keys, *arguments))
        answer = await self.call("EVAL", script.text, len(keys), *keys, *arguments)
        self._told.add(script)
        return answer

    async def calls(self, commands: Sequence[Command]) -> list[Any]:
        """Answers in order; where Redis refused a command its ``ErrorReply`` stands."""
        async with self._turned(self._slots) as deadline:
            wire = self._idle.pop() if self._idle else self.wire()
            answers = await self._exchange(wire, commands, deadline)
            self._idle.append(wire)
            return answers

    async def write(self, commands: Sequence[Command]) -> list[Any]:
        """As ``calls``, one caller after the other, on a connection that nobody else has."""
        async with self._turned(self._turn) as deadline:
            return await self._exchange(self._writer, commands, deadline)

    async def run(self) -> NoReturn:
        """The pulse: asks Redis every second, and tells when it is away and when it is back."""
        while True:
            had_trouble = self.trouble is not None
            try:
                await self._probe()
            except StoreAway:
                await asyncio.sleep(random.uniform(*(RETRY_S if had_trouble else FIRST_RETRY_S)))
                continue
            try:
                async with asyncio.timeout(PULSE_S):
                    await self._has_failed.wait()
                await asyncio.sleep(random.uniform(*FIRST_RETRY_S))
            except TimeoutError:
                pass

    async def aclose(self) -> None:
        self.trouble = "closed"
        self._fail(self.trouble)
        await asyncio.sleep(0)  # transports close in the loop's next pass

    @asynccontextmanager
    async def _turned(self, turn: asyncio.Semaphore) -> AsyncIterator[float]:
        """Waits for it; answers the loop's time by when all must be over."""
        self._refuse()
        deadline = asyncio.get_running_loop().time() + CALL_S
        try:
            async with asyncio.timeout_at(deadline):
                await turn.acquire()
        except TimeoutError:
            raise StoreAway from None
        try:
            self._refuse()
            yield deadline
        finally:
            turn.release()

    def _refuse(self) -> None:
        if self.trouble is not None:
            raise StoreAway

    async def _exchange(
        self, wire: Wire, commands: Sequence[Command], deadline: float
    ) -> list[Any]:
        failures = self._failures
        is_whole = False
        try:
            async with asyncio.timeout_at(deadline):
                if not wire.is_open:
                    await wire.open()
                answers = await wire.exchange(commands)
            for answer in answers:
                if isinstance(answer, ErrorReply) and answer.away:
                    raise answer
            is_whole = True
        except FAILURES as error:
            if failures == self._failures:  # else it is old news
                self._fail(matter(error))
            raise StoreAway from None
        finally:
            if not is_whole:  # cancelled too: answers may still be coming
                wire.close()
        self._heard()
        return answers

    async def _probe(self) -> None:
        """Whether it writes, too: a replica, or one without memory, reads well."""
        deadline = asyncio.get_running_loop().time() + CALL_S
        ours = secrets.token_hex(8)
        probe: list[Command] = [("SET", self.keys.store, ours, "NX", "GET")]
        is_return = self.trouble is not None
        told = list(Script.known) if is_return else []
        probe += [("SCRIPT", "LOAD", script.text) for script in told]
        if is_return:
            probe.append(("PUBLISH", self.keys.store, ""))  # a right of its own, since Redis 7
            probe.append(("INFO", "server"))
        answers = await self._exchange(self._pulse, probe, deadline)
        for answer in answers:
            if isinstance(answer, ErrorReply):  # older than 7.0, or a script that is not Lua
                self._fail(matter(answer))
                raise StoreAway
        mark: bytes = answers[0] or ours.encode()
        server = _RUN_ID.findall(answers[-1]) if is_return else self._server
        if self._mark is not None and is_return:
            self._back = time.monotonic()
        if self._mark is not None and (mark, server) != (self._mark, self._server):
            logger.warning("Redis was restarted: it may have lost data")
            self._forgot = time.monotonic()
            is_return = True
        self._mark, self._server = mark, server
        self._told.update(told)
        if is_return:
            self._return()

    def _heard(self) -> None:
        now = time.monotonic()
        if now - self.last_contact > BREAK_S:
            self._since = now
        self.last_contact = now

    def _fail(self, why: str) -> None:
        """Connections that nobody waits on are closed: the pulse needs a fresh one, and who knows
        what became of the others."""
        if why != self.trouble:
            logger.warning("Redis cannot be used: %s", why)
        self.trouble = why
        self._failures += 1
        self._is_back.clear()
        self._has_failed.set()
        for wire in [*self._idle, self._pulse]:
            wire.close()
        self._idle.clear()
        if not self._turn.locked():
            self._writer.close()

    def _return(self) -> None:
        if self.trouble is not None:
            logger.info("Redis can be used")
        self.trouble = None
        self._since = time.monotonic()
        self._has_failed.clear()
        self._is_back.set()
        for callback in self._callbacks:
            try:
                callback()
            except Exception:
                logger.exception("what follows Redis's return has failed")
