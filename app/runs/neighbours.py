"""The seams to the other workers: those that read our runs, and those whose runs are read here.

A worker is one gateway process. Without Redis there are no others.
"""

from collections.abc import Callable, Iterable
from typing import NamedTuple, Protocol, runtime_checkable


class Household(Protocol):
    """A worker's own runs, as other workers have to do with them."""

    def running(self) -> Iterable[str]:
        """Their ids."""

    def asked_to_stop(self, run_id: str) -> None:
        """Somebody asked another worker to cancel it."""

    def read_elsewhere(self, run_id: str, are_there: bool | None) -> None:
        """Whether it has readers elsewhere; False: it had some. None: it never had, as far as is
        known, or that cannot be told just now."""


class Talker(NamedTuple):
    """Which run talks in a conversation, and for how long it has said so."""

    run_id: str
    age_s: float


class Talks(Protocol):
    """One run at a time talks in a conversation, whichever worker makes it."""

    async def talker(self, owner: str, conversation_id: str) -> Talker | None:
        """Who talks there, or did and is not known to have ended. Raises ``StoreAway``."""

    async def claim(
        self, owner: str, conversation_id: str, run_id: str, instead_of: str | None
    ) -> Talker | None:
        """Who talks there already; None: ``run_id`` does now. ``instead_of``: a run that does not
        count, because it has ended. Raises ``StoreAway``; that may have been a claim as well."""

    def release(self, owner: str, conversation_id: str, run_id: str) -> None:
        """If ``run_id`` talks there, it soon does no more."""


class Neighbours(Protocol):
    @property
    def talks(self) -> Talks: ...

    def listen(self, household: Household) -> None:
        """Tell ``household`` from now on what other workers have to say."""

    async def stop(self, run_id: str) -> bool:
        """Ask the worker that makes the run to cancel it. That may get lost, so it is to be said
        again. False: no other worker makes it. Raises ``StoreAway``."""

    def reads(self, run_id: str, yes: bool) -> None:
        """One more reader is here, or one less, of a run that we do not make."""

    async def announce(self, run_id: str) -> None:
        """A reader is about to be here: the run's worker can know. ``reads`` follows."""

    def look(self, run_id: str) -> bool:
        """Look who reads a run of ours elsewhere: the household is told soon. False: there is
        nowhere to look."""


@runtime_checkable
class SharedLog(Protocol):
    """An event log that other workers write to as well."""

    def when_fenced(self, callback: Callable[[str], None]) -> None:
        """``callback`` is told of runs of ours that another worker has ended."""

    def hasten(self) -> None:
        """We are about to go: endings do not wait long for others from now on."""

    def let_go(self) -> None:
        """We go: readers of other workers' runs shall go to another worker."""


class Alone:
    """There are no other workers."""

    talks: Talks

    def __init__(self) -> None:
        self.talks = self

    def listen(self, household: Household) -> None:
        pass

    async def stop(self, run_id: str) -> bool:  # noqa: ARG002  the protocol's
        return False

    def reads(self, run_id: str, yes: bool) -> None:
        pass

    async def announce(self, run_id: str) -> None:
        pass

    def look(self, run_id: str) -> bool:  # noqa: ARG002  the protocol's
        return False

    async def talker(self, owner: str, conversation_id: str) -> Talker | None:  # noqa: ARG002  the protocol's
        return None

    async def claim(
        self,
        owner: str,  # noqa: ARG002  the protocol's
        conversation_id: str,  # noqa: ARG002  the protocol's
        run_id: str,  # noqa: ARG002  the protocol's
        instead_of: str | None,  # noqa: ARG002  the protocol's
    ) -> Talker | None:
        return None

    def release(self, owner: str, conversation_id: str, run_id: str) -> None:
        pass


_: type[Neighbours] = Alone  # the type checker proves the promises are kept
__: type[Talks] = Alone
