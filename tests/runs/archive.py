"""Where the conversations of a test are kept: a dictionary that awaits where a database does."""

import asyncio
from collections.abc import Sequence

from app.conversations.model import Conversation, Message, Write
from app.conversations.store import Archive, Unavailable


class MemoryArchive:
    """``is_away``: it refuses everything, as a database that cannot be reached. ``gate``: closed,
    it hangs."""

    def __init__(self) -> None:
        self.conversations: dict[str, Conversation] = {}
        self.messages: dict[str, Message] = {}
        self.lost: set[str] = set()
        self.is_away = False
        self.gate = asyncio.Event()
        self.gate.set()

    async def branch(
        self, conversation_id: str, owner: str, leaf_id: str | None, newest: int
    ) -> Sequence[Message] | None:
        await self._wait()
        conversation = self.conversations.get(conversation_id)
        if conversation is None or conversation.owner != owner:
            return None
        message = self.messages.get(leaf_id or conversation.leaf_id)
        if message is None or message.conversation_id != conversation_id:
            return None
        branch: list[Message] = []
        while message is not None and len(branch) < newest:
            branch.insert(0, message)
            message = self.messages.get(message.parent_id or "")
        return branch

    async def write(self, writes: Sequence[Write]) -> None:
        await self._wait()
        for write in writes:
            if write.conversation is not None:
                self.conversations[write.conversation.id] = write.conversation
            for message in write.messages:
                if self._takes(write, message):
                    self.messages[message.id] = message
                    self.lost |= {message.id} if write.is_lost else set()

    def _takes(self, write: Write, message: Message) -> bool:
        if write.conversation is not None:
            return True
        if not write.is_lost:
            return message.id not in self.lost
        there = self.messages.get(message.id)
        return there is not None and there.status in ("running", "failed")

    async def _wait(self) -> None:
        await asyncio.sleep(0)
        await self.gate.wait()
        if self.is_away:
            raise Unavailable("away")

    def told(self, conversation_id: str) -> list[tuple[str, str, str]]:
        """Role, text and status of each message, in the order in which they came."""
        return [
            (message.role, message.text, message.status)
            for message in self.messages.values()
            if message.conversation_id == conversation_id
        ]


_: type[Archive] = MemoryArchive
