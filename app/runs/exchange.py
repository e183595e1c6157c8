"""A run's question and answer, and where they stand in their conversation."""

import secrets
from collections.abc import Sequence
from dataclasses import dataclass

from msgspec import structs

from app.conversations.journal import Journal
from app.conversations.model import Conversation, Message, Write
from app.conversations.store import Archive, Unavailable
from app.errors import NotFound, Overloaded
from app.events.model import Done, Event, RunRecord
from app.llm.turn import Prompt
from app.runs.answer import Answer
from app.runs.request import Request

TITLE_LENGTH = 80  # characters
AWAY = "Conversations cannot be reached at the moment."


@dataclass(slots=True)
class Exchange:
    """``opening``: the question, with an answer that says no more than that it runs. ``is_kept``:
    the opening was handed over to be stored."""

    prompt: Prompt
    opening: Write
    is_kept: bool = False


class Exchanges:
    """Between runs and where conversations are kept. ``newest``: messages that a model sees."""

    def __init__(self, archive: Archive, journal: Journal, newest: int) -> None:
        self._archive = archive
        self._newest = newest
        self.journal = journal

    def refuse(self, request: Request) -> None:
        """Raises ``Overloaded``: too much waits to be stored already, or the conversation that is
        to go on cannot be read."""
        if self.journal.is_full:
            raise Overloaded
        if request.conversation_id is not None and self.journal.trouble is not None:
            raise Overloaded(AWAY)

    async def prepare(self, request: Request, record: RunRecord) -> Exchange:
        """Raises ``NotFound`` for a conversation or message, ``Overloaded`` where the database
        cannot be asked for one."""
        if request.conversation_id is None:
            return _exchange(request, record, [])
        return _exchange(request, record, await self.history(request, record.owner))

    async def history(self, request: Request, owner: str) -> list[Message]:
        """Of the conversation that is to go on. Raises as ``prepare``."""
        conversation_id = request.conversation_id or ""
        try:
            await self.journal.settled(conversation_id)
            branch = await self._archive.branch(
                conversation_id, owner, request.parent_message_id, self._newest + 1
            )
        except Unavailable:
            raise Overloaded(AWAY) from None
        if not branch:
            raise NotFound
        return list(branch)

    async def keep_question(self, exchange: Exchange) -> None:
        """Store it before the model is called. Where that fails, it is tried again later."""
        exchange.is_kept = True
        await self.journal.keep(exchange.opening)

    async def keep_answer(
        self, exchange: Exchange, answer: Answer, ending: Sequence[Event]
    ) -> None:
        """Store the answer as far as it came. Where that fails, it is tried again later."""
        if not exchange.is_kept:  # the run was over before it asked
            self.journal.keep_later(exchange.opening)
        running, done = exchange.opening.messages[-1], ending[-1]
        if not isinstance(done, Done):
            raise TypeError(f"{done} ends no run")
        message = structs.replace(
            running,
            text=answer.text,
            reasoning=answer.reasoning,
            steps=tuple(answer.steps),
            status=done.status,
            usage=done.usage,
            model=done.answered_by or running.model,
        )
        await self.journal.keep_together(Write((message,)))


def _exchange(request: Request, record: RunRecord, branch: list[Message]) -> Exchange:
    """``branch``: up to the message that this one follows."""
    last = branch[-1] if branch else None
    questions: tuple[Message, ...] = ()
    if request.text is None:
        if last is not None and last.role == "assistant":
            branch.pop()  # the version that the new answer stands beside
        if not branch or branch[-1].role != "user":
            raise NotFound
    else:
        parent_id = last.id if last else None
        if last is not None and last.role == "user":  # an edited question stands beside it
            parent_id = last.parent_id
            branch.pop()
        question = Message(
            id=secrets.token_urlsafe(16),
            conversation_id=record.conversation_id,
            parent_id=parent_id,
            role="user",
            text=request.text,
            status="completed",
            created_at=record.created_at,
            run_id=record.run_id,
        )
        branch.append(question)
        questions = (question,)
    answer = Message(
        id=record.answer_id,
        conversation_id=record.conversation_id,
        parent_id=branch[-1].id,
        role="assistant",
        text="",
        status="running",
        created_at=record.created_at,
        run_id=record.run_id,
        model=record.model,
    )
    conversation = Conversation(
        id=record.conversation_id,
        owner=record.owner,
        title=_title(branch[-1].text),
        created_at=record.created_at,
        updated_at=record.created_at,
        leaf_id=answer.id,
    )
    is_new = request.conversation_id is None
    return Exchange(
        Prompt(request.entry, tuple(branch), request.parameters, request.tools),
        Write((*questions, answer), conversation, is_new),
    )


def _title(question: str) -> str:
    """The question's beginning on one line."""
    title = " ".join(question[: TITLE_LENGTH * 4].split())
    return title if len(title) <= TITLE_LENGTH else title[: TITLE_LENGTH - 1] + "…"
