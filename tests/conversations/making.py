"""Writes as runs make them, for tests of what stores them."""

import itertools
import secrets
from typing import Any

from msgspec.structs import replace

from app.conversations.model import Conversation, Message, Write
from app.events.model import Usage

USAGE = Usage(1, 2, 3, estimated=True)
_clock = itertools.count(1_800_000_000)


def new_id() -> str:
    return secrets.token_urlsafe(16)


def ask(
    text: str = "why?",
    *,
    after: Write | None = None,
    conversation_id: str | None = None,
    parent_id: str | None = None,
    owner: str = "me",
) -> Write:
    """A question with its running answer. ``after``: goes on behind that one's answer. Without it
    and a conversation, one begins."""
    is_new = after is None and conversation_id is None
    if after is not None and after.conversation is not None:
        conversation_id, parent_id = after.conversation.id, after.messages[-1].id
    id_, run_id, at = conversation_id or new_id(), new_id(), float(next(_clock))
    question = Message(new_id(), id_, parent_id, "user", text, "completed", at, run_id)
    answer = Message(new_id(), id_, question.id, "assistant", "", "running", at, run_id, "m")
    conversation = Conversation(id_, owner, text[:80], at, at, answer.id)
    return Write((question, answer), conversation, is_new)


def again(asked: Write) -> Write:
    """Another version of the answer."""
    assert asked.conversation is not None
    at, version = float(next(_clock)), replace(asked.messages[-1], id=new_id(), run_id=new_id())
    conversation = replace(asked.conversation, updated_at=at, leaf_id=version.id)
    return Write((replace(version, created_at=at),), conversation)


def answer(asked: Write, text: str = "because", **values: Any) -> Write:
    """The end of the run."""
    whole = {"status": "completed", "usage": USAGE} | values
    return Write((replace(asked.messages[-1], text=text, **whole),))


def id_of(asked: Write) -> str:
    assert asked.conversation is not None
    return asked.conversation.id
