"""Lets a LangChain ``Runnable`` of somebody else answer: a LangGraph agent, say.

It brings its own models, tools and loop. What its models say comes through the same callback
handler and filter as in our own loop (``app.llm.listener``). It is asked once: what it did in the
world cannot be taken back, so nothing is tried again.
"""

import logging
from collections.abc import Sequence
from importlib import import_module
from typing import Any

import openai
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import BaseMessage
from langchain_core.runnables import Runnable

from app.errors import (
    GatewayError,
    Internal,
    TooManyIterations,
    UpstreamBroken,
    UpstreamUnavailable,
)
from app.llm.clocks import TurnClocks
from app.llm.failures import failure_of
from app.llm.foreign import contained
from app.llm.listener import Listener
from app.llm.reply import Reply
from app.llm.upstream import Begin
from app.settings import SettingsError

logger = logging.getLogger(__name__)

# Where LangChain's wrappers keep the runnable that gets their input.
_INNER = ("bound", "first", "runnable", "default")


def load_runnable(where: str) -> Runnable[Any, Any]:
    """``where``: ``package.module:object``. Raises ``SettingsError``."""
    module, _, name = where.partition(":")
    try:
        found = getattr(import_module(module), name)
    except (Exception, SystemExit) as error:  # noqa: BLE001  # an import runs somebody's code
        why = " ".join(f"{type(error).__name__}: {error}".split())
        raise SettingsError(f"runnable {where} cannot be loaded: {why}") from None
    if not isinstance(found, Runnable):
        raise SettingsError(f"runnable {where} is no LangChain Runnable")
    return found


async def run(
    runnable: Runnable[Any, Any], messages: Sequence[BaseMessage], reply: Reply, begin: Begin
) -> str:
    """Answers the finish reason. Raises ``GatewayError``. Takes ``{"messages": [...]}`` as graphs
    do, or the messages themselves if a chat model gets them."""
    entry = reply.prompt.entry
    clocks = _Clocks(first_token_s=entry.first_token_s, stall_s=entry.stall_s)
    listener = Listener(reply, begin, clocks)
    asked: Any = list(messages) if _takes_messages(runnable) else {"messages": list(messages)}
    reply.attempts = 1
    try:
        async with clocks:
            clocks.pause()  # until it asks a model
            told = await contained(
                runnable.ainvoke(asked, config={"callbacks": [listener]}), "runnable"
            )
            if listener.bug is None:
                listener.end(told)
    except GatewayError:
        raise
    except Exception as error:
        if listener.bug is None:
            raise _failure(error, listener) from error
    finally:
        listener.close()
    if listener.bug is not None:  # LangChain keeps those of threads to itself
        raise listener.bug
    return listener.finish_reason


class _Clocks(TurnClocks):
    def finished(self) -> None:
        """Its model's connection is none of ours."""


def _takes_messages(runnable: Any) -> bool:
    while not isinstance(runnable, BaseChatModel):
        inner = next((name for name in _INNER if hasattr(runnable, name)), None)
        if inner is None:
            return False
        runnable = getattr(runnable, inner)
    return True


def _failure(error: Exception, listener: Listener) -> GatewayError:
    if type(error).__name__ == "GraphRecursionError":  # LangGraph's, which we do not depend on
        return TooManyIterations()
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, openai.OpenAIError):
            return failure_of(cause, head_seen=listener.has_heard(cause)).error
        if listener.is_of_model(cause):
            return UpstreamBroken() if listener.has_heard(cause) else UpstreamUnavailable()
        cause = cause.__cause__
    logger.error("a runnable failed", exc_info=error)
    return Internal()
