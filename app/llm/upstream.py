"""The seam to the code that asks a model.

No LangChain here: this is what the rest of the gateway sees of it before it has been imported.
"""

from typing import Protocol

from app.errors import UpstreamError
from app.llm.catalogue import ModelEntry
from app.llm.clocks import TurnClocks
from app.llm.reply import Reply
from app.llm.turn import Turn


class UpstreamFailure(Exception):
    """An attempt failed. ``again``: asking once more may help; ``retry_after_s``: not sooner.

    ``kind`` is for the process's log: classes and statuses, never the upstream's text.
    """

    def __init__(
        self,
        error: UpstreamError,
        *,
        again: bool = False,
        retry_after_s: float | None = None,
        kind: str = "",
    ) -> None:
        super().__init__(kind)
        self.error = error
        self.again = again
        self.retry_after_s = retry_after_s


class Begin(Protocol):
    def __call__(self, reply: Reply, clocks: TurnClocks, *, aside: bool = False) -> Turn:
        """The reply's next turn. ``aside``: its text is no part of the answer."""


class UpstreamReader(Protocol):
    """Asks models' servers and streams what they answer."""

    async def ask(self, turn: Turn, entry: ModelEntry) -> None:
        """One attempt with that model. Returns when the answer has ended, well or not: ``turn``
        knows.

        Raises ``UpstreamFailure``. Cancelling it closes the upstream connection.
        """

    async def run(self, reply: Reply, begin: Begin) -> str:
        """Let the ``runnable`` of the prompt's entry answer, in turns that ``begin`` makes.
        Answers the finish reason.

        Raises ``GatewayError``. Cancelling it cancels the runnable.
        """

    async def aclose(self) -> None:
        """Close the connections that wait for the next turn."""
