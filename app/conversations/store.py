"""The seams to where conversations are kept: what endpoints read, and what runs write."""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from app.conversations.model import Conversation, Message, Thread, Write


class Unavailable(Exception):
    """The database cannot be reached, or does not take the write now: later it may. Its text says
    what kind of trouble it is, without addresses and what people wrote."""


class Place(NamedTuple):
    """Where a listing goes on: behind the conversation with these values."""

    updated_at: float
    id: str


class Library(Protocol):
    """What callers see. Every method raises ``Unavailable``. Somebody else's conversation is as one
    that does not exist."""

    async def page(self, owner: str, behind: Place | None, limit: int) -> Sequence[Conversation]:
        """The owner's conversations, last used first."""

    async def find(self, conversation_id: str, owner: str) -> Thread | None:
        """With all messages."""

    async def rename(self, conversation_id: str, owner: str, title: str) -> bool:
        """Whether there is such a conversation."""

    async def delete(self, conversation_id: str, owner: str) -> bool:
        """With all its messages. Whether there was such a conversation."""


class Archive(Protocol):
    """What runs need. Every method raises ``Unavailable``."""

    async def branch(
        self, conversation_id: str, owner: str, leaf_id: str | None, newest: int
    ) -> Sequence[Message] | None:
        """The newest messages of the branch that ends in ``leaf_id`` (None: of the one shown),
        oldest first. None where there is no such conversation, or no such message in it."""

    async def write(self, writes: Sequence[Write]) -> None:
        """Store all in order, in one transaction."""
