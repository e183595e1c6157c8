"""What callers and runs see of a store; each test runs on both databases."""

import asyncio

import pytest
from msgspec.structs import replace

from app.conversations.model import Write
from app.conversations.sql import SqlStore
from app.conversations.store import Place
from tests.conversations.making import again, answer, ask, id_of, new_id

pytestmark = pytest.mark.anyio
BOUND_S = 30

ODD_IDS = [
    "",
    "x' OR '1'='1",
    "'; DROP TABLE messages; --",
    "%",
    "a\0b",
    "\ud800",
    "é\u2028",
    "x" * 5000,
]


def texts(messages: object) -> list[str]:
    assert messages is not None
    return [message.text for message in messages]  # type: ignore[attr-defined]  # a sequence of any kind


async def test_a_conversation_is_found_with_all_its_messages(store: SqlStore) -> None:
    async with asyncio.timeout(BOUND_S):
        first = ask("one?")
        second = ask("two?", after=first)
        await store.write([first, answer(first), second])
        thread = await store.find(id_of(first), "me")
    assert thread is not None
    assert thread.messages == (first.messages[0], *answer(first).messages, *second.messages)
    assert first.conversation is not None
    assert second.conversation is not None
    assert thread.conversation.title == first.conversation.title
    assert thread.conversation.created_at == first.conversation.created_at
    assert thread.conversation.updated_at == second.conversation.updated_at
    assert thread.conversation.leaf_id == second.messages[1].id


async def test_somebody_elses_conversation_is_as_one_that_does_not_exist(store: SqlStore) -> None:
    async with asyncio.timeout(BOUND_S):
        asked = ask(owner="you")
        await store.write([asked])
        for id_ in (id_of(asked), new_id()):
            assert await store.find(id_, "me") is None
            assert await store.branch(id_, "me", None, 10) is None
            assert await store.rename(id_, "me", "mine") is False
            assert await store.delete(id_, "me") is False
        assert await store.page("me", None, 10) == []
        thread = await store.find(id_of(asked), "you")
    assert thread is not None
    assert thread.conversation == asked.conversation


@pytest.mark.parametrize("id_", ODD_IDS, ids=ascii)
async def test_an_odd_id_is_one_that_does_not_exist(store: SqlStore, id_: str) -> None:
    async with asyncio.timeout(BOUND_S):
        asked = ask()
        await store.write([asked])
        assert await store.find(id_, "me") is None
        assert await store.branch(id_, "me", None, 10) is None
        assert await store.branch(id_of(asked), "me", id_ or "no", 10) is None
        assert await store.rename(id_, "me", "x") is False
        assert await store.delete(id_, "me") is False
        assert await store.page("me", Place(0.0, id_), 10) == []
        assert await store.page(id_.encode("ascii", "ignore").decode(), None, 10) == []
        assert await store.find(id_of(asked), "me") is not None


# -- branches -------------------------------------------------------------------------------


async def chain(store: SqlStore, turns: int) -> list[Write]:
    asked = [ask("q0")]
    for number in range(1, turns):
        asked.append(ask(f"q{number}", after=asked[-1]))
    ended = [answer(write, f"a{number}") for number, write in enumerate(asked)]
    await store.write([write for pair in zip(asked, ended, strict=True) for write in pair])
    return asked


async def test_a_branch_is_the_newest_messages_oldest_first(store: SqlStore) -> None:
    async with asyncio.timeout(BOUND_S):
        asked = await chain(store, 3)
        id_ = id_of(asked[0])
        assert texts(await store.branch(id_, "me", None, 100)) == [
            "q0",
            "a0",
            "q1",
            "a1",
            "q2",
            "a2",
        ]
        assert texts(await store.branch(id_, "me", None, 3)) == ["a1", "q2", "a2"]
        assert texts(await store.branch(id_, "me", None, 1)) == ["a2"]
        middle = asked[1].messages[0].id
        assert texts(await store.branch(id_, "me", middle, 2)) == ["a0", "q1"]
        assert await store.branch(id_, "me", new_id(), 2) is None
        other = await chain(store, 1)
        assert await store.branch(id_, "me", other[0].messages[0].id, 2) is None


async def test_versions_and_edited_questions_are_siblings(store: SqlStore) -> None:
    async with asyncio.timeout(BOUND_S):
        first = ask("one")
        second = ask("two", after=first)
        version = again(first)
        edited = ask("three", conversation_id=id_of(first))
        writes = [first, answer(first, "1"), second, answer(second, "2"), version]
        await store.write([*writes, answer(version, "1b")])
        assert texts(await store.branch(id_of(first), "me", None, 9)) == ["one", "1b"]
        await store.write([edited, answer(edited, "3")])
        thread = await store.find(id_of(first), "me")
        assert thread is not None
        assert texts(thread.messages) == ["one", "1", "two", "2", "1b", "three", "3"]
        assert thread.conversation.leaf_id == edited.messages[1].id
        assert texts(await store.branch(id_of(first), "me", None, 9)) == ["three", "3"]
        old = second.messages[1].id
        assert texts(await store.branch(id_of(first), "me", old, 9)) == ["one", "1", "two", "2"]


async def test_a_branch_never_leads_into_another_conversation(store: SqlStore) -> None:
    async with asyncio.timeout(BOUND_S):
        yours, mine = ask("secret", owner="you"), ask("mine")
        stray = ask("stray", conversation_id=id_of(mine), parent_id=yours.messages[1].id)
        await store.write([yours, mine, stray])
        branch = await store.branch(id_of(mine), "me", None, 10)
    assert texts(branch) == ["stray", ""]


async def test_the_end_of_a_very_long_conversation_is_found_by_its_links(store: SqlStore) -> None:
    async with asyncio.timeout(BOUND_S):
        asked = await chain(store, 5000)
        branch = await store.branch(id_of(asked[0]), "me", None, 20)
        assert texts(branch)[-2:] == ["q4999", "a4999"]
        assert len(texts(branch)) == 20
        whole = await store.branch(id_of(asked[0]), "me", None, 10_000)
        thread = await store.find(id_of(asked[0]), "me")
    assert whole is not None
    assert thread is not None
    assert tuple(whole) == thread.messages
    assert len(whole) == 10_000


# -- listing --------------------------------------------------------------------------------


async def listed(store: SqlStore, limit: int) -> list[str]:
    found: list[str] = []
    behind = None
    while page := await store.page("me", behind, limit):
        assert len(page) <= limit
        found += [conversation.id for conversation in page]
        behind = Place(page[-1].updated_at, page[-1].id)
    return found


async def test_pages_hold_every_conversation_once_last_used_first(store: SqlStore) -> None:
    async with asyncio.timeout(BOUND_S):
        asked = [ask(str(number)) for number in range(7)]
        await store.write([*asked, ask(owner="you")])
        newest = [id_of(write) for write in reversed(asked)]
        for limit in (1, 3, 7, 50):
            assert await listed(store, limit) == newest
        await store.write([ask(after=asked[2])])
        assert (await listed(store, 50))[0] == id_of(asked[2])


async def test_conversations_of_the_same_moment_are_all_listed(store: SqlStore) -> None:
    async with asyncio.timeout(BOUND_S):
        asked = [_at(ask(), 5.125) for _ in range(9)]
        await store.write(asked)
        found = await listed(store, 2)
    assert sorted(found) == sorted(map(id_of, asked))


def _at(write: Write, moment: float) -> Write:
    assert write.conversation is not None
    return replace(write, conversation=replace(write.conversation, updated_at=moment))


async def test_what_changes_while_somebody_pages_is_neither_repeated_nor_in_the_way(
    store: SqlStore,
) -> None:
    async with asyncio.timeout(BOUND_S):
        asked = [ask(str(number)) for number in range(6)]
        await store.write(asked)
        page = await store.page("me", None, 2)
        await store.write([ask("new"), ask(after=asked[1])])
        assert await store.delete(id_of(asked[4]), "me")  # the very one that the place names
        assert await store.delete(id_of(asked[2]), "me")
        rest = await store.page("me", Place(page[-1].updated_at, page[-1].id), 50)
    assert [one.id for one in page] == [id_of(asked[5]), id_of(asked[4])]
    assert [one.id for one in rest] == [id_of(asked[3]), id_of(asked[0])]
