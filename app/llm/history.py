"""What a model sees of a conversation, as LangChain's messages.

The question and what its run did since are always there. Of what came before it, the newest that
fit into both bounds: a number of messages, and the model's context window by our estimate, with
room left for its answer. It begins with a question, so that no result stands without its call.
Where that leaves nothing, as after an answer with many calls, it is the last exchange: its question
and its answer's text, without all calls and results, if that fits into both bounds.
"""

import json
import re
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec
from langchain_core.messages import (
    AIMessage,
    BaseMessage,
    HumanMessage,
    ToolCall,
    ToolMessage,
    trim_messages,
)

from app.conversations.model import Message, Step
from app.llm.turn import BYTES_PER_TOKEN, estimated_tokens

MESSAGE_TOKENS = 4  # around each message, of a chat template's own (OpenAI's cookbook: 3 or 4)
ANSWER_SHARE = 4  # a quarter of the window is the answer's, where nobody said how long it may be
MAX_NAME = 64  # characters of a tool's name; OpenAI's API takes no more, and no others than these
_NOT_IN_A_NAME = re.compile("[^a-zA-Z0-9_-]")
NO_RESULT = "The call was cut off before it had a result."
CUT = "\n[cut to fit the model's context window]"


def langchain_messages(
    messages: Sequence[Message],
    steps: Iterable[Step],
    *,
    newest: int,
    room: int | None,
) -> list[BaseMessage]:
    """``messages``: of the conversation, the question last. ``steps``: of the question's run.
    ``newest``: messages at most, but for the question's own run. ``room``: tokens, None: no bound.
    """
    *before, question = messages
    while before and before[0].role != "user":
        del before[0]
    now: list[BaseMessage] = [HumanMessage(question.text)]
    for step in steps:
        now += _of_step(step)
    if room is not None:
        now = _fitted(now, room)
        room -= _tokens(now)
    earlier = [part for message in before for part in _of_message(message)]
    if len(earlier) >= newest or (room is not None and _tokens(earlier) > room):
        earlier = _trimmed(earlier, newest - 1, len)
        if room is not None:
            earlier = _trimmed(earlier, room, _tokens)
        if not earlier:
            earlier = _last_exchange(before)
            if len(earlier) >= newest or (room is not None and _tokens(earlier) > room):
                earlier = []
    return earlier + now


def room_for_prompt(
    window: int | None, max_tokens: int | None, tools: Sequence[dict[str, Any]]
) -> int | None:
    """Tokens of a context window that are left for messages. ``tools``: their schemas."""
    if window is None:
        return None
    answer = window // ANSWER_SHARE if max_tokens is None else max_tokens
    taken = estimated_tokens(json.dumps(tools)) if tools else 0
    return max(0, window - answer - taken)


def _trimmed(messages: list[BaseMessage], bound: int, count: Any) -> list[BaseMessage]:
    if bound <= 0:
        return []
    return trim_messages(
        messages, max_tokens=bound, token_counter=count, strategy="last", start_on="human"
    )


def _last_exchange(before: Sequence[Message]) -> list[BaseMessage]:
    """Without calls and results. Empty where there was no question."""
    said: list[BaseMessage] = []
    for message in before:
        if message.role == "user":
            said = [HumanMessage(message.text)]
        elif message.text:
            said.append(AIMessage(message.text))
    return said


def _of_message(message: Message) -> list[BaseMessage]:
    if message.role == "user":
        return [HumanMessage(message.text)]
    parts = [part for step in message.steps for part in _of_step(step)]
    return [*parts, AIMessage(message.text)] if message.text else parts


def _of_step(step: Step) -> list[BaseMessage]:
    results = {result.id: result for result in step.results}
    said: list[BaseMessage] = [
        AIMessage(
            step.text,
            tool_calls=[
                ToolCall(name=_name(call.tool), args=_arguments(call.arguments), id=call.id)
                for call in step.calls
            ],
        )
    ]
    for call in step.calls:
        result = results.get(call.id)
        said.append(
            ToolMessage(
                result.content if result else NO_RESULT,
                tool_call_id=call.id,
                status="error" if result is None or result.is_error else "success",
            )
        )
    return said


def _name(called: str) -> str:
    """Models invent names that their own server refuses to hear again."""
    return _NOT_IN_A_NAME.sub("_", called)[:MAX_NAME] or "unknown"


def _arguments(written: str) -> dict[str, Any]:
    """Servers that put arguments into a chat template refuse what is no JSON object. As strict as
    what hands them to tools: no NaN, no lone surrogates."""
    try:
        return msgspec.json.decode(written or "{}", type=dict[str, Any])
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return {"invalid": written}


def _tokens(messages: Iterable[BaseMessage]) -> int:
    total = 0
    for message in messages:
        total += MESSAGE_TOKENS + estimated_tokens(str(message.content))
        if isinstance(message, AIMessage) and message.tool_calls:
            total += estimated_tokens(json.dumps(message.tool_calls))
    return total


def _fitted(now: list[BaseMessage], room: int) -> list[BaseMessage]:
    """The question and its steps: the oldest steps go first, whole; then the results of the last
    one are cut."""
    question, steps = now[0], now[1:]
    while steps and _tokens([question, *steps]) > room:
        begins = [at for at, part in enumerate(steps) if isinstance(part, AIMessage)]
        if len(begins) == 1:
            return [question, *_cut(steps, room - _tokens([question]))]
        steps = steps[begins[1] :]
    return [question, *steps]


def _cut(step: list[BaseMessage], room: int) -> list[BaseMessage]:
    call, *results = step
    each = (room - _tokens([call])) // len(results) - MESSAGE_TOKENS - estimated_tokens(CUT)
    for result in results:
        text = str(result.content)
        kept = text.encode()[: max(0, each) * BYTES_PER_TOKEN].decode(errors="ignore")
        if len(kept) + len(CUT) < len(text):
            result.content = kept + CUT
    return step
