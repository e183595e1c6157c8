"""One living run: who reads it, who wants it to stop, and when its upstream call has ended."""

import asyncio
from collections.abc import Callable
from enum import Enum

from app.errors import GatewayError
from app.events.model import RunRecord
from app.llm.clocks import LATE_S, SECOND_LOOK_S
from app.runs.account import Account

# A cancel that a library swallows (performance.md knows one that does) is sent again. Seconds.
CANCEL_AGAIN_S = 1.0


class Cancelled(Enum):
    """Why a run ends ``cancelled``."""

    BY_REQUEST = "by request"
    READERS_LEFT = "readers left"


class Lost(Enum):
    """Why a run ends without a word of ours."""

    FENCED = "another worker has ended it"


# The finish reason of an answer that is whole, or why it is not.
Outcome = str | Cancelled | GatewayError


class Run:
    """Lives from acceptance until its ending is in the log. ``look``: see ``Neighbours``; what it
    brings comes to ``read_elsewhere``."""

    def __init__(self, record: RunRecord, look: Callable[[str], bool], account: Account) -> None:
        self.record = record
        self.account = account
        self.stop_reason: Cancelled | Lost | GatewayError | None = None
        self.is_ending = False  # its last words are being written
        self.opened = asyncio.Event()  # its log can be found, or it never came to that
        self.ended = asyncio.get_running_loop().create_future()
        self._readers = 0
        self._grace: asyncio.TimerHandle | None = None
        self._look = look
        self._is_looking = False  # the clock has run out, if nobody reads elsewhere
        self._has_claim = False  # readers elsewhere count as one
        self._call: asyncio.Task[Outcome] | None = None

    def calls(self, task: asyncio.Task[Outcome]) -> None:
        """``task`` makes the upstream call: ``stop`` cancels it."""
        self._call = task
        if self.stop_reason is not None:
            self._cancel_call()

    def stop(self, reason: Cancelled | Lost | GatewayError) -> None:
        """End the run. The first reason stands, but for ``Lost``, which leaves nothing to end."""
        if self.stop_reason is None or isinstance(reason, Lost):
            self.stop_reason = reason
            self._cancel_call()

    def joined(self) -> None:
        """A reader came; one that comes back in time stops the grace clock."""
        self._readers += 1
        self._is_looking = False
        if self._grace is not None:
            self._grace.cancel()
            self._grace = None

    def left(self) -> None:
        """A reader left; the last one starts the grace clock."""
        self._readers -= 1
        grace_s = self.record.grace_s
        if self._readers or grace_s is None or self.ended.done():
            return
        if grace_s == 0:
            self._forsaken()
        else:
            loop = asyncio.get_running_loop()
            self._grace = loop.call_later(grace_s, self._grace_over, loop.time() + grace_s)

    def _grace_over(self, due: float) -> None:
        """Late means that we slept: a reader that came meanwhile waits to be accepted."""
        loop = asyncio.get_running_loop()
        if loop.time() - due > LATE_S:
            self._grace = loop.call_later(SECOND_LOOK_S, self._forsaken)
        else:
            self._forsaken()

    def _forsaken(self) -> None:
        """Nobody has come back here."""
        self._grace = None
        self._is_looking = self._look(self.record.run_id)
        if not self._is_looking:
            self.stop(Cancelled.READERS_LEFT)

    def read_elsewhere(self, are_there: bool | None) -> None:
        """As ``Household`` has it: None leaves it as it was."""
        if are_there is not None and are_there is not self._has_claim:
            self._has_claim = are_there
            (self.joined if are_there else self.left)()
        elif are_there is False and not self._is_looking:  # they came and went unseen
            self.joined()
            self.left()
        elif self._is_looking:
            self._is_looking = False
            self.stop(Cancelled.READERS_LEFT)

    def end(self) -> None:
        """The ending is in the log; nothing of the run is left to stop."""
        if self._grace is not None:
            self._grace.cancel()
        self.opened.set()
        if not self.ended.done():
            self.ended.set_result(None)

    async def has_ended(self, within_s: float) -> bool:
        """Wait for that."""
        try:
            async with asyncio.timeout(within_s):
                await asyncio.shield(self.ended)
        except TimeoutError:
            return False
        return True

    def _cancel_call(self) -> None:
        if self._call is not None and not self._call.done():
            self._call.cancel()
            asyncio.get_running_loop().call_later(CANCEL_AGAIN_S, self._cancel_call)
