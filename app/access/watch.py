"""Live streams whose caller's credential may end before they do.

Looked at by credential, not by stream: a caller with many streams costs one look.
"""

import asyncio
import logging
from collections.abc import Callable, Hashable
from types import TracebackType
from typing import NoReturn

from app.access.model import Caller

logger = logging.getLogger(__name__)

LOOK_S = 5.0  # between two looks: a twelfth of the minute that a stream may outlive its credential
AT_ONCE = 500  # credentials, or streams, between two passes of the loop: a millisecond


class Watched:
    """One stream: a context manager, but no generator, which would cost twice as much."""

    __slots__ = ("_groups", "_refuse", "_streams", "caller")

    def __init__(self, groups: "_Groups", caller: Caller, refuse: Callable[[], None]) -> None:
        self._groups = groups
        self._refuse = refuse
        self._streams: set[Watched] = set()
        self.caller = caller

    def __enter__(self) -> None:
        self._streams = self._groups.setdefault(_credential(self.caller), self._streams)
        self._streams.add(self)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        streams = self._streams
        streams.discard(self)
        if not streams:
            credential = _credential(self.caller)
            if self._groups.get(credential) is streams:  # else they were refused, and others came
                del self._groups[credential]

    def refuse(self) -> None:
        try:
            self._refuse()
        except Exception:
            logger.exception("refusing a stream met a bug")


_Groups = dict[Hashable, set[Watched]]


class Watch:
    """``still_accepts``: whether the caller's credential is good now."""

    def __init__(self, still_accepts: Callable[[Caller], bool]) -> None:
        self._still_accepts = still_accepts
        self._groups: _Groups = {}  # streams by credential; empty: all were refused

    def __len__(self) -> int:
        """Streams."""
        return sum(map(len, self._groups.values()))

    def watching(self, caller: Caller, refuse: Callable[[], None]) -> Watched:
        """To be entered for as long as the stream lives. Meanwhile ``refuse`` is called once, at
        the first look at which the caller is no longer accepted."""
        return Watched(self._groups, caller, refuse)

    async def run(self) -> NoReturn:
        """Looks every ``LOOK_S`` seconds, until cancelled."""
        while True:
            await asyncio.sleep(LOOK_S)
            await self.look()

    async def look(self) -> None:
        """At each credential once."""
        for number, streams in enumerate(list(self._groups.values()), 1):
            if streams and not self._accepts(next(iter(streams)).caller):
                await _refuse(streams)
            if number % AT_ONCE == 0:
                await asyncio.sleep(0)

    def _accepts(self, caller: Caller) -> bool:
        """After a bug nobody is cut off: the next look may know better."""
        try:
            return self._still_accepts(caller)
        except Exception:
            logger.exception("looking whether a caller is still accepted met a bug")
            return True


async def _refuse(streams: set[Watched]) -> None:
    """Those that leave meanwhile are told no more."""
    told = 0
    while streams:
        streams.pop().refuse()
        told += 1
        if told % AT_ONCE == 0:
            await asyncio.sleep(0)


def _credential(caller: Caller) -> Hashable:
    """What a look depends on. Not the caller as a whole: its hash costs more."""
    return (
        caller.id,
        caller.key_id,
        caller.key_sha256,
        caller.signed_by,
        caller.session_id,
        caller.expires_at,
    )
