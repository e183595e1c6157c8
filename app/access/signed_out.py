"""Sessions that were signed out before their end. Their cookies are signed and not over, so this is
all that says no to them."""

import time
from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import Protocol

SESSION_S = 12 * 3600.0  # a session's longest life: a working day. Nobody need be known for longer
# Above what one caller can sign out in a session's life at 120 requests a minute (86,400), so that
# nobody alone can make the gateway forget another's. 19 MB.
KEPT = 100_000


class SignedOut(Protocol):
    def add(self, session_id: str) -> None:
        """Known here when the call returns, on other workers soon after."""

    def __contains__(self, session_id: str, /) -> bool: ...


class MemorySignedOut:
    """This process's, lost with it: a cookie that somebody kept is good again after a restart, for
    the rest of its hours. With Redis it is not. ``clock``: Unix seconds."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._until = OrderedDict[str, float]()  # in the order in which they may be forgotten

    def add(self, session_id: str) -> None:
        now = self._clock()
        self._until.setdefault(session_id, now + SESSION_S)
        while len(self._until) > KEPT or next(iter(self._until.values())) <= now:
            self._until.popitem(last=False)

    def __contains__(self, session_id: str) -> bool:
        return session_id in self._until

    def all(self) -> Iterable[str]:
        """Oldest first."""
        return self._until.keys()


_: type[SignedOut] = MemorySignedOut  # the type checker proves the promise is kept
