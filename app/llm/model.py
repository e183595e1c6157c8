"""A chat model: one turn with its clocks, and the retries before the first token.

After the first token nothing is tried again: a second answer would not continue the first.
"""

import asyncio
import logging
import random
from collections.abc import Callable

from app.errors import Internal, UpstreamBroken, UpstreamStalled
from app.events.queue import EventQueue
from app.llm.clocks import TurnClocks
from app.llm.turn import Prompt, Turn, UpstreamFailure, UpstreamReader

logger = logging.getLogger(__name__)

ATTEMPTS = 3
# Full jitter (AWS architecture blog, 2015): a random wait up to base * 2^n, capped. Seconds.
BACKOFF_BASE_S = 0.5
BACKOFF_CAP_S = 8.0


class ChatModel:
    """``load`` must have run, or be running, for ``answer`` to get anywhere."""

    def __init__(
        self, build: Callable[[], UpstreamReader], *, first_token_s: float, stall_s: float
    ) -> None:
        self._build = build
        self._first_token_s = first_token_s
        self._stall_s = stall_s
        self._reader: UpstreamReader | None = None
        self._loaded = asyncio.Event()

    async def load(self) -> None:
        """Build the reader in a thread, because importing LangChain takes a second."""
        try:
            self._reader = await asyncio.to_thread(self._build)
        except Exception:
            logger.exception("the model library cannot be loaded")
        self._loaded.set()

    @property
    def state(self) -> str:
        """``loading``, ``ready`` or ``failed``."""
        if not self._loaded.is_set():
            return "loading"
        return "ready" if self._reader else "failed"

    def turn(self, prompt: Prompt, queue: EventQueue) -> Turn:
        clocks = TurnClocks(first_token_s=self._first_token_s, stall_s=self._stall_s)
        return Turn(prompt, queue, clocks)

    async def answer(self, turn: Turn) -> str:
        """Returns the finish reason when the answer is whole. Raises ``UpstreamError``.

        The clocks begin once the library is loaded: the upstream is not to blame for our start.
        """
        await self._loaded.wait()
        if self._reader is None:
            raise Internal
        try:
            async with turn.clocks:
                await self._ask(self._reader, turn)
        except UpstreamStalled:
            if turn.finish_reason is None:
                raise  # else it kept the connection, but the answer is whole
        finally:
            turn.flush()
        if turn.finish_reason is None:
            raise UpstreamBroken
        return turn.finish_reason

    async def _ask(self, reader: UpstreamReader, turn: Turn) -> None:
        for attempt in range(1, ATTEMPTS + 1):
            try:
                return await reader.ask(turn)
            except UpstreamFailure as failure:
                if turn.finish_reason is not None:
                    return None  # the answer is whole; only its trailer was lost
                wait = failure.retry_after_s
                if wait is None:
                    wait = random.uniform(0, min(BACKOFF_CAP_S, BACKOFF_BASE_S * 2**attempt))
                hopeless = not failure.again or turn.clocks.first_token_seen
                if hopeless or attempt == ATTEMPTS or wait >= turn.clocks.remaining():
                    raise failure.error from failure
                await asyncio.sleep(wait)
        return None

    async def aclose(self) -> None:
        if self._reader is not None:
            await self._reader.aclose()
