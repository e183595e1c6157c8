"""The body of ``POST /v1/chat/completions``, as far as a script needs it. Pure.

Unknown fields are ignored, as OpenAI's own servers and all compatible ones must.
"""

import msgspec

from app.simulator.ask import Ask
from app.simulator.spec import BadSpecError, choose

_BEGINS = 40  # characters of a message that `history` repeats


class BadChatError(ValueError):
    """The body is no chat; the message says where."""


class _Part(msgspec.Struct):
    text: str | None = None


class _Function(msgspec.Struct):
    name: str = ""


class _Tool(msgspec.Struct):
    """One that is offered, or a call of one."""

    function: _Function = msgspec.field(default_factory=_Function)


class _Message(msgspec.Struct):
    role: str
    content: str | list[_Part] | None = None
    tool_calls: list[_Tool] | None = None

    @property
    def text(self) -> str:
        if isinstance(self.content, str):
            return self.content
        return "".join(part.text or "" for part in self.content or ())

    @property
    def heard(self) -> dict[str, object]:
        """``chars`` counts characters; ``calls`` names the tools called, where some were."""
        told: dict[str, object] = {"role": self.role, "chars": len(self.text)}
        told["begins"] = self.text[:_BEGINS]
        if self.tool_calls:
            told["calls"] = [call.function.name for call in self.tool_calls]
        return told


class _StreamOptions(msgspec.Struct):
    include_usage: bool | None = None


class Chat(msgspec.Struct):
    """One request. ``ask`` makes of it what the scripts see."""

    model: str
    messages: list[_Message]
    stream: bool | None = None
    stream_options: _StreamOptions | None = None
    tools: list[_Tool] | None = None

    @property
    def wants_usage(self) -> bool:
        return bool(self.stream_options and self.stream_options.include_usage)

    @property
    def prompt_tokens(self) -> int:
        """About four characters each, at least one a message; no tokenizer is worth its cost."""
        return sum(1 + len(message.text) // 4 for message in self.messages)

    @property
    def _asked(self) -> int:
        """Index of the last user message, -1 without one."""
        users = (i for i, message in enumerate(self.messages) if message.role == "user")
        return max(users, default=-1)

    @property
    def heard(self) -> dict[str, object]:
        """The request in short: its messages, and the names of the tools that it offers."""
        tools = [tool.function.name for tool in self.tools or ()]
        return {"messages": [message.heard for message in self.messages], "tools": tools}

    def ask(self) -> Ask:
        """Raises ``BadChatError`` when the spec is not understood."""
        asked = self._asked
        prompt = self.messages[asked].text if asked >= 0 else ""
        try:
            spec, text = choose(prompt, self.model)
        except BadSpecError as error:
            raise BadChatError(str(error)) from error
        turn = self.messages[asked + 1 :]
        results: list[str] = []
        for message in reversed(turn):
            if message.role != "tool":
                break
            results.insert(0, message.text)
        rounds = sum(1 for message in turn if message.tool_calls)
        return Ask(
            spec,
            text,
            prompt,
            messages=len(self.messages),
            rounds=rounds,
            results=tuple(results),
            model=self.model,
            heard=self.heard if spec.name == "history" else None,
        )


_DECODER = msgspec.json.Decoder(Chat)


def parse_chat(body: bytes) -> Chat:
    """Raises ``BadChatError``."""
    try:
        chat = _DECODER.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadChatError(f"the body is no chat completion request: {error}") from error
    if not chat.messages:
        raise BadChatError("messages must hold at least one message")
    return chat
