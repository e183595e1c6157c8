"""What a script may know about the request that it answers."""

from collections.abc import Mapping
from dataclasses import dataclass

from app.simulator.spec import Spec


@dataclass(frozen=True, slots=True)
class Ask:
    spec: Spec
    text: str  # of the user, without the spec
    prompt: str = ""  # of the user, with it
    messages: int = 1  # in the request: makes tool call ids unique in a conversation
    rounds: int = 0  # turns since the last user message that called tools
    results: tuple[str, ...] = ()  # the tool messages at the very end of the request
    attempt: int = 1  # the how manyth call with this `key=` it is, from 1
    model: str = "simulator"
    heard: Mapping[str, object] | None = None  # for `history`: see `Chat.heard`
