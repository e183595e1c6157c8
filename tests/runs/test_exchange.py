"""What a run stores and what its model is told: questions, answers, versions, branches."""

import asyncio
from typing import Any

import pytest
from msgspec.structs import replace

from app.conversations import journal
from app.conversations.journal import Journal
from app.conversations.model import Message
from app.errors import NotFound, Overloaded, UpstreamBroken
from app.events.model import Final, Token
from app.llm.history import langchain_messages
from app.runs.exchange import Exchange, Exchanges
from app.runs.request import Request
from tests.events.making import record
from tests.llm.making import entry
from tests.runs.archive import MemoryArchive
from tests.runs.fakes import World, hangs, released, says

pytestmark = pytest.mark.anyio

NEW = record()


class Talk:
    """One conversation, asked and answered without a run."""

    def __init__(self, newest: int = 20) -> None:
        self.archive = MemoryArchive()
        self.exchanges = Exchanges(self.archive, Journal(self.archive), newest)
        self._is_begun = False

    async def prepare(self, text: str | None, **more: Any) -> Exchange:
        more.setdefault("conversation_id", NEW.conversation_id if self._is_begun else None)
        request = Request(text, entry(), frozenset(), 5.0, **more)
        return await self.exchanges.prepare(request, replace(record(), created_at=2.5))

    async def ask(self, text: str | None, **more: Any) -> tuple[Message, ...]:
        """The messages that are new, the answer whole."""
        exchange = await self.prepare(text, **more)
        *asked, answer = exchange.opening.messages
        answer = replace(answer, text=f"to {text}", status="completed")
        opening = replace(exchange.opening, messages=(*asked, answer))
        await self.archive.write([opening])
        self._is_begun = True
        return opening.messages


def texts(exchange: Exchange) -> list[str]:
    return [message.text for message in exchange.prompt.messages]


async def test_a_first_question_begins_a_conversation() -> None:
    exchange = await Talk().prepare("why?")
    opening = exchange.opening
    question, answer = opening.messages
    assert opening.is_new
    assert opening.conversation is not None
    assert opening.conversation.leaf_id == answer.id
    assert (question.role, question.parent_id, question.status) == ("user", None, "completed")
    assert (answer.role, answer.parent_id, answer.status) == ("assistant", question.id, "running")
    assert question.run_id == answer.run_id
    assert exchange.prompt.messages == (question,)


@pytest.mark.parametrize(
    ("question", "title"),
    [
        ("why?", "why?"),
        ("  two\n\nlines\u2028and\tmore ", "two lines and more"),
        ("x" * 80, "x" * 80),
        ("x" * 81, "x" * 79 + "…"),
        ("word " * 50_000, ("word " * 16)[:79] + "…"),
        ("a\0b", "a\0b"),
    ],
)
async def test_a_title_is_the_questions_beginning_on_one_line(question: str, title: str) -> None:
    opening = (await Talk().prepare(question)).opening
    assert opening.conversation is not None
    assert opening.conversation.title == title


async def test_a_question_follows_the_answer_that_is_shown() -> None:
    talk = Talk()
    *_, last = await talk.ask("one")
    exchange = await talk.prepare("two")
    assert exchange.opening.messages[0].parent_id == last.id
    assert not exchange.opening.is_new
    assert texts(exchange) == ["one", "to one", "two"]


async def test_a_new_version_of_an_answer_stands_beside_it() -> None:
    talk = Talk()
    await talk.ask("one")
    question, answer = await talk.ask("two")
    for more in ({}, {"parent_message_id": answer.id}, {"parent_message_id": question.id}):
        exchange = await talk.prepare(None, **more)
        [version] = exchange.opening.messages
        assert version.parent_id == question.id
        assert version.id != answer.id
        assert texts(exchange) == ["one", "to one", "two"]


@pytest.mark.parametrize("edited", [0, 1])
async def test_an_edited_question_stands_beside_it(edited: int) -> None:
    talk = Talk()
    questions = [(await talk.ask(text))[0] for text in ("one", "two")]
    exchange = await talk.prepare("other", parent_message_id=questions[edited].id)
    assert exchange.opening.messages[0].parent_id == questions[edited].parent_id
    assert not exchange.opening.is_new, "or it would bring a deleted conversation back"
    assert texts(exchange) == [["other"], ["one", "to one", "other"]][edited]


@pytest.mark.parametrize("newest", range(1, 8))
@pytest.mark.parametrize("way", ["go on", "regenerate", "edit"])
async def test_the_model_sees_as_much_as_it_may_and_begins_with_a_question(
    newest: int, way: str
) -> None:
    talk = Talk(newest)
    for k in range(6):
        question, _ = await talk.ask(f"q{k}")
    match way:
        case "go on":
            exchange, before = await talk.prepare("last"), 6
        case "regenerate":
            exchange, before = await talk.prepare(None), 5
        case _:
            exchange, before = await talk.prepare("last", parent_message_id=question.id), 5
    told = langchain_messages(exchange.prompt.messages, [], newest=newest, room=None)
    pairs = (newest - 1) // 2
    earlier = [text for k in range(before - pairs, before) for text in (f"q{k}", f"to q{k}")]
    last = "q5" if way == "regenerate" else "last"
    assert [message.text for message in told] == [*earlier, last]


@pytest.mark.parametrize("more", [{"conversation_id": "unknown"}, {"parent_message_id": "unknown"}])
async def test_what_is_not_there_is_not_found(more: dict[str, str]) -> None:
    talk = Talk()
    await talk.ask("one")
    for text in ("two", None):
        with pytest.raises(NotFound):
            await talk.prepare(text, **more)


async def test_without_the_database_only_new_conversations_begin() -> None:
    talk = Talk()
    await talk.ask("one")
    talk.archive.is_away = True
    with pytest.raises(Overloaded):
        await talk.prepare("two")
    assert texts(await talk.prepare("new", conversation_id=None)) == ["new"]


# -- with runs ------------------------------------------------------------------------------


async def test_a_question_is_stored_before_the_model_is_asked() -> None:
    async with World(hangs()) as world:
        run = await world.start(text="why?")
        await world.model.began.wait()
        assert world.archive.told(run.conversation_id) == [
            ("user", "why?", "completed"),
            ("assistant", "", "running"),
        ]
        await world.cancel(run)


async def test_a_database_that_is_away_does_not_keep_the_model_from_being_asked() -> None:
    async with World(says("whole")) as world:
        world.archive.is_away = True
        run = await world.start(text="why?")
        assert await world.told(run) == ["whole", "final stop", "completed"]
        assert world.archive.told(run.conversation_id) == []
        world.archive.is_away = False
        await world.journal.settled(run.conversation_id)
        assert world.archive.told(run.conversation_id) == [
            ("user", "why?", "completed"),
            ("assistant", "whole", "completed"),
        ]


@pytest.mark.parametrize(
    ("script", "ends", "text", "status"),
    [
        (says("whole"), None, "whole", "completed"),
        (says("part", then=UpstreamBroken()), None, "part", "failed"),
        (says("part", then=ValueError()), None, "part", "failed"),
        (hangs("part"), "cancel", "part", "cancelled"),
        (hangs("part"), "leave", "part", "cancelled"),
        (hangs("part"), "drain", "part", "failed"),
    ],
)
async def test_an_answer_is_stored_as_far_as_it_came_and_how_it_ended(
    script: Any, ends: str | None, text: str, status: str
) -> None:
    async with World(script) as world:
        run = await world.start(text="why?", grace_s=0)
        await world.until(run, Token)
        match ends:
            case "cancel":
                await world.cancel(run)
            case "leave":
                with world.supervisor.reading(run.run_id):
                    pass
            case "drain":
                await world.supervisor.drain(0)
        await world.told(run)
        await world.journal.settled(run.conversation_id)
        [_, answer] = world.archive.messages.values()
    assert (answer.text, answer.status) == (text, status)
    assert answer.usage is not None


async def test_an_answer_is_stored_before_its_ending_is_told() -> None:
    async with World(says("whole")) as world:
        run = await world.start(text="why?")
        await world.until(run, Final)
        assert world.archive.told(run.conversation_id) == [
            ("user", "why?", "completed"),
            ("assistant", "whole", "completed"),
        ]


async def test_an_archive_that_hangs_keeps_no_ending_for_long(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(journal, "ANSWER_WAIT_S", 0.01)
    gate = asyncio.Event()
    async with World(released(gate, "whole")) as world:
        run = await world.start(text="why?")
        await world.until(run, Token)
        world.archive.gate.clear()
        gate.set()
        assert await world.told(run) == ["whole", "final stop", "completed"]
        assert world.archive.told(run.conversation_id)[1] == ("assistant", "", "running")
        world.archive.gate.set()
        await world.journal.settled(run.conversation_id)
        assert world.archive.told(run.conversation_id)[1:] == [("assistant", "whole", "completed")]


async def test_a_run_that_was_over_before_it_asked_has_its_question_stored() -> None:
    async with World(says("never")) as world:
        run = await world.start(text="why?")
        assert await world.cancel(run) == "cancelled"
        assert world.model.asked == 0
        await world.journal.settled(run.conversation_id)
        assert world.archive.told(run.conversation_id) == [
            ("user", "why?", "completed"),
            ("assistant", "", "cancelled"),
        ]


async def test_where_too_much_waits_to_be_stored_no_run_begins() -> None:
    async with World(says("whole")) as world:
        world.archive.is_away = True
        world.journal._max_bytes = 0
        run = await world.start()
        await world.told(run)
        with pytest.raises(Overloaded):
            await world.start()
        world.archive.is_away = False
        await world.journal.settled(run.conversation_id)
        await world.told(await world.start())


async def test_a_bug_in_storing_an_answer_takes_nobodys_ending(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def broken(*_: object) -> None:
        raise TypeError("a bug")

    async with World(says("whole")) as world:
        monkeypatch.setattr(world.supervisor._exchanges, "keep_answer", broken)
        run = await world.start()
        assert await world.told(run) == ["whole", "final stop", "completed"]
