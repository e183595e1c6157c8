"""Answers of workers that are gone, or thought so; each test runs on both databases."""

import asyncio

import pytest
from msgspec.structs import replace

from app.conversations.model import Message, Write
from app.conversations.sql import SqlStore
from tests.conversations.making import answer, ask, id_of

pytestmark = pytest.mark.anyio
BOUND_S = 30


def lost(asked: Write, text: str = "bec") -> Write:
    return replace(answer(asked, text, status="failed"), is_lost=True)


async def shown(store: SqlStore, asked: Write) -> Message:
    thread = await store.find(id_of(asked), "me")
    assert thread is not None
    return thread.messages[-1]


async def test_a_lost_answer_takes_the_place_of_one_that_runs(store: SqlStore) -> None:
    async with asyncio.timeout(BOUND_S):
        asked = ask()
        await store.write([asked])
        for _ in range(2):
            await store.write([lost(asked)])
            assert await shown(store, asked) == lost(asked).messages[0]


async def test_a_lost_answer_is_stored_where_its_run_was_marked_as_failed(store: SqlStore) -> None:
    async with asyncio.timeout(BOUND_S):
        asked = ask()
        await store.write([asked, answer(asked, "", status="failed", usage=None)])
        await store.write([lost(asked)])
        assert (await shown(store, asked)).text == "bec"


@pytest.mark.parametrize("status", ["completed", "cancelled"])
async def test_an_answer_that_was_stored_stays(store: SqlStore, status: str) -> None:
    async with asyncio.timeout(BOUND_S):
        asked = ask()
        stored = answer(asked, "because", status=status)
        await store.write([asked, stored])
        await store.write([lost(asked)])
        assert await shown(store, asked) == stored.messages[0]


async def test_a_worker_that_was_thought_dead_does_not_overwrite_what_readers_were_told(
    store: SqlStore,
) -> None:
    async with asyncio.timeout(BOUND_S):
        asked, other = ask(), ask()
        await store.write([asked, other, lost(asked)])
        await store.write([answer(asked, "because"), answer(other, "because")])
        await store.write([asked])
        assert await shown(store, asked) == lost(asked).messages[0]
        assert (await shown(store, other)).status == "completed"


async def test_a_lost_answer_without_a_question_or_a_conversation_vanishes(
    store: SqlStore,
) -> None:
    async with asyncio.timeout(BOUND_S):
        asked, unknown = ask(), ask()
        await store.write([asked])
        assert await store.delete(id_of(asked), "me")
        await store.write([lost(asked), lost(unknown)])
        assert await store.page("me", None, 5) == []
