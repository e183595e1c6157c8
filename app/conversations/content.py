"""What a message holds beside its place in the tree: one column of ASCII JSON."""

import json

import msgspec
from msgspec import Struct

from app.conversations.model import Message, Step
from app.events.model import Usage


class Content(Struct, frozen=True, omit_defaults=True):
    text: str
    model: str | None = None
    usage: Usage | None = None
    reasoning: str = ""
    steps: tuple[Step, ...] = ()


def encode(message: Message) -> str:
    content = Content(message.text, message.model, message.usage, message.reasoning, message.steps)
    return json.dumps(msgspec.to_builtins(content))


def decode(column: str) -> Content:
    try:
        return _decoder.decode(column)
    except msgspec.DecodeError:  # the escape of a lone surrogate, which it refuses
        return msgspec.convert(json.loads(column), Content)


_decoder = msgspec.json.Decoder(Content)
