"""What a store makes of writes; each test runs on both databases."""

import asyncio

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from app.conversations.model import Message, Step, Write
from app.conversations.sql import SqlStore
from app.conversations.store import Unavailable
from app.events.model import ToolCall, ToolResult, Usage
from tests.conversations.making import again, answer, ask, id_of, new_id

pytestmark = pytest.mark.anyio
BOUND_S = 30

ODD_TEXTS = [
    "\0",
    "a\0b",
    "\u2028\u2029\x85",
    "\U0001f600\U0001f468\u200d\U0001f469",
    "\\u0000",
    '"',
    "\ufeff\uffff",
    "x" * 200_000,
    "\0" * 200_000,
]


async def messages_of(store: SqlStore, write: Write, owner: str = "me") -> tuple[Message, ...]:
    thread = await store.find(id_of(write), owner)
    assert thread is not None
    return thread.messages


@pytest.mark.parametrize("text", ODD_TEXTS, ids=lambda text: ascii(text[:8]))
async def test_texts_are_kept_exactly(store: SqlStore, text: str) -> None:
    async with asyncio.timeout(BOUND_S):
        asked = ask(text, owner=f"o{text[:50]}")
        call = ToolCall("1", text, text)
        step = Step(text, (call,), (ToolResult("1", text, text, is_error=True),))
        ended = answer(asked, text, reasoning=text, steps=(step, Step("", ())), model=text)
        await store.write([asked, ended])
        thread = await store.find(id_of(asked), f"o{text[:50]}")
        assert thread is not None
        assert thread.conversation == asked.conversation
        assert thread.messages == (asked.messages[0], *ended.messages)
        assert await store.rename(id_of(asked), f"o{text[:50]}", text + "!")
        [renamed] = await store.page(f"o{text[:50]}", None, 5)
    assert asked.conversation is not None
    assert renamed == replace(asked.conversation, title=text + "!")


_text = st.text(st.characters(exclude_categories=()), max_size=20)  # surrogates and all
_count = st.integers(0, 2**53)
_messages = st.builds(
    Message,
    id=st.builds(new_id),
    conversation_id=st.just("c"),
    parent_id=st.none(),
    role=st.sampled_from(["user", "assistant"]),
    text=_text,
    status=st.sampled_from(["running", "completed", "failed", "cancelled"]),
    created_at=st.floats(0, 1e12),
    run_id=st.builds(new_id),
    model=st.none() | _text,
    usage=st.none() | st.builds(Usage, _count, _count, _count, st.booleans()),
    reasoning=_text,
    steps=st.lists(
        st.builds(
            Step,
            _text,
            st.lists(st.builds(ToolCall, _text, _text, _text), max_size=3).map(tuple),
            st.lists(st.builds(ToolResult, _text, _text, _text, st.booleans())).map(tuple),
        ),
        max_size=3,
    ).map(tuple),
)


@settings(
    deadline=None,
    max_examples=30,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(st.lists(_messages, min_size=1, max_size=5))
async def test_whatever_a_message_holds_comes_back(store: SqlStore, made: list[Message]) -> None:
    id_ = new_id()
    messages = tuple(replace(message, conversation_id=id_) for message in made)
    first = ask(conversation_id=id_)
    assert first.conversation is not None
    conversation = replace(first.conversation, leaf_id=messages[-1].id)
    async with asyncio.timeout(BOUND_S):
        await store.write([Write(messages, conversation, is_new=True)])
        thread = await store.find(id_, "me")
    assert thread is not None
    assert thread.messages == messages


async def test_storing_twice_changes_nothing(store: SqlStore) -> None:
    async with asyncio.timeout(BOUND_S):
        first = ask("one")
        second = ask("two", after=first)
        third = ask("three", after=second)
        writes = [first, answer(first), second, answer(second), third]
        await store.write(writes)
        assert await store.rename(id_of(first), "me", "renamed")
        before = await store.find(id_of(first), "me")
        for repeated in ([first], [answer(first)], writes, [second], writes[:2]):
            await store.write(repeated)
            assert await store.find(id_of(first), "me") == before


async def test_a_question_that_comes_late_does_not_undo_its_answer(store: SqlStore) -> None:
    async with asyncio.timeout(BOUND_S):
        asked = ask()
        await store.write([asked, answer(asked)])
        await store.write([asked])
        assert (await messages_of(store, asked))[1].status == "completed"


async def test_questions_of_one_batch_leave_the_conversation_at_the_last(store: SqlStore) -> None:
    async with asyncio.timeout(BOUND_S):
        first = ask("one")
        edited = ask("two", conversation_id=id_of(first))
        third = ask("three", after=edited)
        await store.write([first, edited, third])
        thread = await store.find(id_of(first), "me")
    assert thread is not None
    assert third.conversation is not None
    assert thread.conversation.title == "one"
    assert thread.conversation.leaf_id == third.conversation.leaf_id
    assert thread.conversation.updated_at == third.conversation.updated_at


async def test_a_partial_answer_keeps_its_status(store: SqlStore) -> None:
    async with asyncio.timeout(BOUND_S):
        asked = ask()
        cut = answer(asked, "bec", status="cancelled")
        await store.write([asked])
        await store.write([cut])
        assert (await messages_of(store, asked))[1:] == cut.messages


async def test_a_deleted_conversation_is_gone_with_all_its_messages(store: SqlStore) -> None:
    async with asyncio.timeout(BOUND_S):
        asked, other = ask(), ask()
        await store.write([asked, other])
        assert await store.delete(id_of(asked), "me") is True
        assert await store.delete(id_of(asked), "me") is False
        assert await store.find(id_of(asked), "me") is None
        assert await store.branch(id_of(asked), "me", asked.messages[1].id, 5) is None
        assert len(await messages_of(store, other)) == 2
        anew = replace(ask(conversation_id=id_of(asked)), is_new=True)
        await store.write([anew])
        assert await messages_of(store, anew) == anew.messages


async def test_what_comes_for_a_deleted_conversation_vanishes(store: SqlStore) -> None:
    async with asyncio.timeout(BOUND_S):
        asked = ask()
        await store.write([asked])
        assert await store.delete(id_of(asked), "me")
        late = ask("more?", after=asked)
        edited = ask("what?", conversation_id=id_of(asked))
        await store.write([answer(asked), late, answer(late), again(asked), edited])
        assert await store.find(id_of(asked), "me") is None
        assert await store.page("me", None, 5) == []


async def test_nobody_writes_into_somebody_elses_conversation(store: SqlStore) -> None:
    async with asyncio.timeout(BOUND_S):
        yours = ask(owner="you")
        await store.write([yours])
        mine = ask("mine", conversation_id=id_of(yours))
        deeper = ask("mine", conversation_id=id_of(yours), parent_id=yours.messages[1].id)
        await store.write([mine, deeper, replace(mine, is_new=True)])
        thread = await store.find(id_of(yours), "you")
        assert await store.find(id_of(yours), "me") is None
    assert thread is not None
    assert thread.messages == yours.messages
    assert thread.conversation == yours.conversation


async def test_a_batch_is_stored_at_once_or_not_at_all(store: SqlStore) -> None:
    async with asyncio.timeout(BOUND_S):
        good, bad = ask(), ask()
        broken = replace(bad.messages[0], id=None)
        with pytest.raises(Exception) as caught:  # noqa: PT011  each database has its own
            await store.write([good, replace(bad, messages=(broken,))])
        assert not isinstance(caught.value, Unavailable)
        assert "why?" not in str(caught.value), "errors never show what people wrote"
        assert await store.page("me", None, 5) == []


async def test_many_write_and_read_at_once(store: SqlStore) -> None:
    async with asyncio.timeout(BOUND_S):
        asked = [ask(str(number)) for number in range(40)]

        async def live(write: Write) -> None:
            await store.write([write])
            await store.branch(id_of(write), "me", None, 5)
            await store.write([answer(write)])
            assert len(await messages_of(store, write)) == 2

        async with asyncio.TaskGroup() as tasks:
            for write in asked:
                tasks.create_task(live(write))
        assert len(await store.page("me", None, 50)) == 40


async def test_a_store_that_is_not_open_is_unavailable(url: str) -> None:
    closed = SqlStore(url)
    async with asyncio.timeout(BOUND_S):
        with pytest.raises(Unavailable):
            await closed.write([ask()])
        with pytest.raises(Unavailable):
            await closed.page("me", None, 5)
        await closed.aclose()
