"""What the code below LangChain tells about one request upstream, past LangChain."""

import asyncio
from contextvars import ContextVar
from time import perf_counter

SHARE_S = 0.0005  # measured: beside four flat-out runs a first token comes after 0.2 s, not 0.65


class Attempt:
    """``head_seen``: the upstream answered with a 200, so a break after it is the answer's.
    ``done_seen``: it sent ``[DONE]``, which only the lean reader tells."""

    def __init__(self) -> None:
        self.head_seen = False
        self.done_seen = False
        self._began = perf_counter()

    def waited_since(self, asked: float) -> None:
        """More was asked for at ``asked``. If we had to wait for it, others had their turn."""
        now = perf_counter()
        if now - asked > SHARE_S:
            self._began = now

    def is_over_its_share(self) -> bool:
        """Not by the loop's clock, which uvloop stops during a pass."""
        return perf_counter() - self._began > SHARE_S

    async def give_way(self) -> None:
        """Let the others run. An upstream that always has more ready would else keep the event
        loop: nothing on the way of a token waits."""
        await asyncio.sleep(0)
        self._began = perf_counter()


ATTEMPT: ContextVar[Attempt] = ContextVar("ATTEMPT")


def note_head() -> None:
    if attempt := ATTEMPT.get(None):
        attempt.head_seen = True
