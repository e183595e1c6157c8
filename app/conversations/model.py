"""What a conversation is made of: frozen values, no SQL, no wire format.

A conversation is a tree of messages. A question's parent is the answer before it, an answer's
parent is its question; versions of an answer, and edited questions, are siblings. The branch that
is shown leads from the root to the conversation's leaf.
"""

from typing import Literal

from msgspec import Struct

from app.events.model import Status, ToolCall, ToolResult, Usage

Role = Literal["user", "assistant"]


class Step(Struct, frozen=True):
    """A model turn that called tools: its text, which is no part of the answer, its calls, and
    their results as far as they came."""

    text: str
    calls: tuple[ToolCall, ...]
    results: tuple[ToolResult, ...] = ()


class Message(Struct, frozen=True):
    """``created_at``: Unix seconds. A question is ``completed`` and has no model. An answer is
    ``running`` until its run ended; ``model`` is the one that said its last word."""

    id: str
    conversation_id: str
    parent_id: str | None
    role: Role
    text: str
    status: Status
    created_at: float
    run_id: str
    model: str | None = None
    usage: Usage | None = None
    reasoning: str = ""
    steps: tuple[Step, ...] = ()


class Conversation(Struct, frozen=True):
    """``title``: from the first question, until somebody changes it. Times: Unix seconds;
    ``updated_at``: when the last question was asked. ``leaf_id``: the last message of the branch
    that is shown."""

    id: str
    owner: str
    title: str
    created_at: float
    updated_at: float
    leaf_id: str


class Thread(Struct, frozen=True):
    """A conversation with all its messages, parents before children, siblings oldest first."""

    conversation: Conversation
    messages: tuple[Message, ...]


class Write(Struct, frozen=True):
    """What is to be stored, at once or not at all. Storing it twice changes nothing.

    ``conversation``: a question, or a new version of an answer, begins it (``is_new``) or goes on
    with it: then only its ``updated_at`` and ``leaf_id`` count, and where it was deleted meanwhile
    nothing is stored. Without one, ``messages`` are answers whose runs have ended: they take the
    place of what stands under their ids; where their conversation was deleted they vanish.
    ``is_lost``: as far as another worker knows them, because their own one is gone: only where no
    answer was stored before. None of that one is stored after it.
    """

    messages: tuple[Message, ...]
    conversation: Conversation | None = None
    is_new: bool = False
    is_lost: bool = False
