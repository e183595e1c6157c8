"""Answers a run's question: a model turn, the tools that it calls, their results, the next turn."""

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Protocol

from app.conversations.model import Step
from app.errors import Internal, TooManyIterations
from app.events.model import ToolCall, ToolResult
from app.events.queue import EventQueue
from app.llm.asking import Source, ask
from app.llm.breaker import Breaker
from app.llm.catalogue import Catalogue, ModelEntry
from app.llm.clocks import TurnClocks
from app.llm.reply import Reply
from app.llm.turn import Prompt, Turn
from app.llm.upstream import UpstreamReader

logger = logging.getLogger(__name__)


class Tools(Protocol):
    async def call(self, name: str, arguments: str, call_id: str) -> tuple[str, bool]:
        """The result's content, and whether it is an error. ``arguments``: JSON as the model wrote
        it. Raises nothing but a cancel."""


class ChatModel:
    """``load`` must have run, or be running, for ``answer`` to get anywhere."""

    def __init__(
        self,
        build: Callable[[], UpstreamReader],
        catalogue: Catalogue,
        tools: Tools,
        *,
        max_iterations: int,
        max_answer_bytes: int,
    ) -> None:
        self._build = build
        self._catalogue = catalogue
        self._tools = tools
        self._max_iterations = max_iterations
        self._max_answer_bytes = max_answer_bytes
        self._reader: UpstreamReader | None = None
        self._loaded = asyncio.Event()
        # Without a models file there is nothing to go to in place of a model that fails.
        self._breakers = (
            {entry.name: Breaker() for entry in catalogue} if catalogue.is_from_file else {}
        )

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

    def reply(self, prompt: Prompt, queue: EventQueue) -> Reply:
        return Reply(prompt, queue)

    async def answer(self, reply: Reply) -> str:
        """Returns the finish reason when the answer is whole. Raises ``GatewayError``.

        The clocks begin once the library is loaded: the upstream is not to blame for our start.
        """
        await self._loaded.wait()
        if self._reader is None:
            raise Internal
        entry = reply.prompt.entry
        if entry.runnable is not None:
            return await self._reader.run(reply, self._begin)
        while True:
            turn = self._begin(reply, _clocks(entry))
            reason = await ask(self._reader, self._sources(reply), reply, turn)
            calls = turn.calls(taken={call.id for step in reply.steps for call in step.calls})
            if not calls:
                return reason
            if len(reply.turns) == self._max_iterations:  # nobody would hear of the results
                raise TooManyIterations
            results = await self._call_tools(reply, turn.tools, calls)
            reply.steps.append(Step(turn.preamble, calls, results))

    def _begin(self, reply: Reply, clocks: TurnClocks, *, aside: bool = False) -> Turn:
        """Raises ``TooManyIterations``."""
        if len(reply.turns) >= self._max_iterations:
            raise TooManyIterations
        turn = Turn(
            reply.prompt,
            reply.queue,
            clocks,
            steps=tuple(reply.steps),
            max_argument_bytes=self._max_answer_bytes,
            aside=aside,
        )
        reply.turns.append(turn)
        return turn

    def _sources(self, reply: Reply) -> list[Source]:
        """The model and its fallbacks, the one that spoke in the last turn first."""
        chain = self._catalogue.chain(reply.prompt.entry)
        sources = [Source(entry, self._breakers.get(entry.name)) for entry in chain]
        return sorted(sources, key=lambda source: source.entry.name != reply.answered_by)

    async def _call_tools(
        self, reply: Reply, tools: Sequence[str], calls: Sequence[ToolCall]
    ) -> tuple[ToolResult, ...]:
        for call in calls:
            reply.queue.put(call)
        async with asyncio.TaskGroup() as tasks:
            running = [tasks.create_task(self._call_tool(reply, tools, call)) for call in calls]
        return tuple(task.result() for task in running)

    async def _call_tool(self, reply: Reply, tools: Sequence[str], call: ToolCall) -> ToolResult:
        if call.tool in tools:
            content, is_error = await self._tools.call(call.tool, call.arguments, call.id)
        else:
            content, is_error = f"There is no such tool. There are: {', '.join(tools)}", True
        result = ToolResult(call.id, call.tool, content, is_error)
        reply.queue.put(result)
        return result

    async def aclose(self) -> None:
        if self._reader is not None:
            await self._reader.aclose()


def _clocks(entry: ModelEntry) -> TurnClocks:
    return TurnClocks(first_token_s=entry.first_token_s, stall_s=entry.stall_s)
