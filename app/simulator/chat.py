"""The body of ``POST /v1/chat/completions``, as far as a script needs it. Pure.

Unknown fields are ignored, as OpenAI's own servers and all compatible ones must.
"""

import msgspec

from app.simulator.scripts import Ask
from app.simulator.spec import BadSpecError, choose


class BadChatError(ValueError):
    """The body is no chat; the message says where."""


class _Part(msgspec.Struct):
    text: str | None = None


class _Message(msgspec.Struct):
    role: str
    content: str | list[_Part] | None = None
    tool_calls: list[msgspec.Raw] | None = None

    @property
    def text(self) -> str:
        if isinstance(self.content, str):
            return self.content
        return "".join(part.text or "" for part in self.content or ())


class _StreamOptions(msgspec.Struct):
    include_usage: bool | None = None


class Chat(msgspec.Struct):
    """One request. ``ask`` makes of it what the scripts see."""

    model: str
    messages: list[_Message]
    stream: bool | None = None
    stream_options: _StreamOptions | None = None

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
        return Ask(spec, text, prompt, len(self.messages), rounds, tuple(results))


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
