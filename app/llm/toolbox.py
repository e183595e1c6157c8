"""The tools that models may call, by name.

A tool gets its arguments as the model wrote them and answers with text, whatever happens in it: a
mistake in the arguments is told to the model, which may repair it; what else goes wrong is ours to
know, so the log has the traceback and the model only learns that the tool failed.

A tool written with ``async def`` is cancelled at its ``await``; to end a process that it started is
its own affair, in a ``finally``. One written with ``def`` runs in a thread that cannot be stopped:
its caller goes on without it.
"""

import asyncio
import json
import logging
import traceback
from collections.abc import Iterable, Sequence
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
from pydantic import ValidationError

from app.llm.foreign import ForeignExit, contained
from app.llm.text import repaired
from app.llm.tool_threads import ToolThreads

if TYPE_CHECKING:  # LangChain's import takes a second, and without tools nobody needs it here
    from langchain_core.messages import ToolMessage
    from langchain_core.tools import BaseTool

TOOL_TIMEOUT_S = 30.0
OUTPUT_BYTES = 64 * 1024  # of a result, with the mark that it was cut: 16,000 tokens or so
MARK_BYTES = 64  # at most
SHOWN_MISTAKES = 5  # of a call's arguments, so that the model need not read a list of thousands

logger = logging.getLogger(__name__)


class Outcome(NamedTuple):
    """Of a call: what the model is told."""

    content: str
    is_error: bool


class Toolbox:
    """``tools`` are always there; further ones come and go with ``put``."""

    def __init__(
        self,
        tools: "Iterable[BaseTool]" = (),
        *,
        timeout_s: float = TOOL_TIMEOUT_S,
        output_bytes: int = OUTPUT_BYTES,
    ) -> None:
        self._timeout_s = timeout_s
        self._output_bytes = output_bytes
        self._sources: dict[str, dict[str, BaseTool]] = {"": {tool.name: tool for tool in tools}}
        self._schemas: dict[str, dict[str, Any]] = {}
        self._threads = ToolThreads()

    @property
    def names(self) -> list[str]:
        """Of the tools that can be called now."""
        return [name for tools in self._sources.values() for name in tools]

    def has(self, name: str) -> bool:
        return self._find(name) is not None

    def put(self, source: str, tools: "Iterable[BaseTool]") -> None:
        """What ``source`` has to offer from now on, in place of what it had. A name that another
        source holds stays with that one."""
        fresh = self._sources[source] = {}
        for tool in tools:
            if self.has(tool.name):
                logger.warning(
                    "there are two tools named %s: that of %s is left out", tool.name, source
                )
            else:
                fresh[tool.name] = tool
                self._schemas.pop(tool.name, None)

    def schemas(self, names: Sequence[str]) -> list[dict[str, Any]]:
        """For ``bind_tools``, in OpenAI's format, not to be changed; without those that are not
        there now."""
        return [self._schema(tool) for tool in map(self._find, names) if tool is not None]

    async def call(self, name: str, arguments: str, call_id: str) -> Outcome:
        """``arguments``: JSON as the model wrote it. Raises nothing but a cancel, which cancels the
        tool too."""
        tool = self._find(name)
        if tool is None:
            return Outcome(f"the tool {name[:64]!r} is not available now", is_error=True)
        try:
            values = _parsed(arguments)
        except ValueError as error:
            return Outcome(str(error), is_error=True)
        try:
            async with asyncio.timeout(self._timeout_s):
                return await contained(self._run(tool, values, call_id), f"tool {name}")
        except TimeoutError:
            return Outcome(f"timed out after {self._timeout_s:g} s", is_error=True)
        except ForeignExit as error:
            _log_failure(name, error)
            return Outcome("the tool failed", is_error=True)

    async def _run(self, tool: "BaseTool", values: dict[str, Any], call_id: str) -> Outcome:
        from langchain_core.tools import ToolException

        try:
            message = await self._invoke(tool, values, call_id)
            return Outcome(self._cut(_text(message.content)), message.status == "error")
        except ToolException as error:
            with suppress(Exception):  # of its own making
                return Outcome(self._cut(str(error) or "the tool failed"), is_error=True)
        except ValidationError as error:
            if error.title == getattr(tool.args_schema, "__name__", None):
                return Outcome(self._cut(_mistakes(error)), is_error=True)
            _log_failure(tool.name, error)
        except asyncio.CancelledError:
            raise
        except BaseException as error:  # noqa: BLE001  # nobody's tool ends the gateway
            _log_failure(tool.name, error)
        return Outcome("the tool failed", is_error=True)

    async def _invoke(
        self, tool: "BaseTool", values: dict[str, Any], call_id: str
    ) -> "ToolMessage":
        from langchain_core.messages import ToolMessage

        if not isinstance(tool.args_schema, dict):
            values = self._without_injected(tool, values)
        call = {"type": "tool_call", "name": tool.name, "args": values, "id": call_id}
        if _blocks(tool):
            message = await self._threads.run(partial(tool.invoke, call))
        else:
            message = await tool.ainvoke(call)
        if not isinstance(message, ToolMessage):
            raise TypeError(f"a tool's result cannot be {type(message).__name__}")
        return message

    def _without_injected(self, tool: "BaseTool", values: dict[str, Any]) -> dict[str, Any]:
        """LangChain takes a value for an ``InjectedToolArg`` from the model too."""
        parameters = self._schema(tool)["function"].get("parameters", {})
        if parameters.get("additionalProperties"):
            return values
        known = parameters.get("properties", {})
        return {name: value for name, value in values.items() if name in known}

    def _find(self, name: str) -> "BaseTool | None":
        for tools in self._sources.values():
            if name in tools:
                return tools[name]
        return None

    def _schema(self, tool: "BaseTool") -> dict[str, Any]:
        from langchain_core.utils.function_calling import convert_to_openai_tool

        if tool.name not in self._schemas:
            self._schemas[tool.name] = convert_to_openai_tool(tool)
        return self._schemas[tool.name]

    def _cut(self, text: str) -> str:
        data = repaired(text).encode()
        if len(data) <= self._output_bytes:
            return data.decode()
        kept = data[: max(self._output_bytes - MARK_BYTES, 0)].decode(errors="ignore")
        return f"{kept}\n[cut: {len(data) - len(kept.encode())} bytes more]"


def _parsed(arguments: str) -> dict[str, Any]:
    """Raises ``ValueError`` with what to tell the model."""
    if not arguments.strip():
        return {}  # what some models write for a tool that takes nothing
    try:
        return msgspec.json.decode(arguments, type=dict[str, Any])
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise ValueError(f"the arguments are not a JSON object: {str(error)[:200]}") from None


def _mistakes(error: ValidationError) -> str:
    found = error.errors(include_url=False, include_context=False, include_input=False)
    said = [f"{'.'.join(map(str, one['loc'])) or 'all'}: {one['msg']}" for one in found]
    more = [f"and {len(said) - SHOWN_MISTAKES} more"] if len(said) > SHOWN_MISTAKES else []
    return "the arguments do not fit: " + "; ".join(said[:SHOWN_MISTAKES] + more)


def _blocks(tool: "BaseTool") -> bool:
    """Whether LangChain would run it in the loop's executor."""
    from langchain_core.tools import BaseTool, StructuredTool, Tool

    stock = (BaseTool._arun, StructuredTool._arun, Tool._arun)
    return type(tool)._arun in stock and getattr(tool, "coroutine", None) is None


def _text(content: str | list[Any]) -> str:
    """Text as it is; other parts (an image, say) as JSON."""
    if isinstance(content, str):
        return content
    return "\n".join(map(_part, content))


def _part(part: Any) -> str:
    if isinstance(part, str):
        return part
    if isinstance(part, dict) and isinstance(part.get("text"), str):
        text: str = part["text"]
        return text
    return json.dumps(part, ensure_ascii=False, default=str)


def _log_failure(name: str, error: BaseException) -> None:
    """Where, and by which error. Not its words: they may repeat what the tool was given."""
    kinds, where = "", ""
    cause: BaseException | None = error
    while cause is not None:
        kinds += f" {type(cause).__name__}"
        where += "".join(traceback.format_tb(cause.__traceback__))
        cause = cause.__cause__
    logger.error("the tool %s failed:%s\n%s", name, kinds, where)
