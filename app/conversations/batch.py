"""From writes to the rows of five statements: one transaction, however many writes."""

from collections.abc import Sequence
from typing import Any

from app.conversations.content import encode
from app.conversations.model import Conversation, Message, Write

Row = dict[str, Any]


class Batch:
    """``begun`` and ``continued`` have one row for each conversation: of several questions the
    last one says where it stands."""

    def __init__(self, writes: Sequence[Write], worker: str) -> None:
        self.asked: list[Row] = []
        self.answered: list[Row] = []
        self.lost: list[Row] = []
        new: dict[str, Conversation] = {}
        last: dict[str, Conversation] = {}
        for write in writes:
            if write.conversation is None:
                (self.lost if write.is_lost else self.answered).extend(map(_answer, write.messages))
                continue
            if write.is_new:
                new.setdefault(write.conversation.id, write.conversation)
            last[write.conversation.id] = write.conversation
            owner = write.conversation.owner
            self.asked += [_question(message, owner, worker) for message in write.messages]
        # In order of ids: two gateways that write to the same ones wait for each other in a line.
        self.begun = [_begun(new[id_], last[id_]) for id_ in sorted(new)]
        self.continued = [_continued(last[id_]) for id_ in sorted(last.keys() - new.keys())]


def _begun(first: Conversation, last: Conversation) -> Row:
    return {
        "id": first.id,
        "owner": first.owner,
        "title": first.title,
        "created_at": first.created_at,
        "updated_at": last.updated_at,
        "leaf_id": last.leaf_id,
    }


def _continued(last: Conversation) -> Row:
    return {
        "the_conversation_id": last.id,
        "the_owner": last.owner,
        "the_updated_at": last.updated_at,
        "the_leaf_id": last.leaf_id,
    }


def _question(message: Message, owner: str, worker: str) -> Row:
    """A question, or its answer, which runs."""
    return {
        "the_id": message.id,
        "the_conversation_id": message.conversation_id,
        "the_owner": owner,
        "the_parent_id": message.parent_id,
        "the_role": message.role,
        "the_status": message.status,
        "the_created_at": message.created_at,
        "the_run_id": message.run_id,
        "the_worker": worker if message.status == "running" else None,
        "the_content": encode(message),
    }


def _answer(message: Message) -> Row:
    return {
        "the_id": message.id,
        "the_conversation_id": message.conversation_id,
        "the_status": message.status,
        "the_content": encode(message),
    }
