"""The queue between callbacks and log: order, batches, its end, and a taker that is cancelled."""

import asyncio

import pytest

from app.events.model import Event, Token
from app.events.queue import EventQueue

pytestmark = pytest.mark.anyio

BOUND_S = 10


def tokens(*texts: str) -> list[Event]:
    return [Token(text) for text in texts]


async def test_everything_that_waits_is_taken_at_once_and_in_order() -> None:
    queue = EventQueue()
    for event in tokens("a", "b", "c"):
        queue.put(event)
    async with asyncio.timeout(BOUND_S):
        assert await queue.take() == tokens("a", "b", "c")


async def test_a_taker_waits_for_the_first_event_and_gets_all_that_came_with_it() -> None:
    queue = EventQueue()
    async with asyncio.timeout(BOUND_S), asyncio.TaskGroup() as tasks:
        taking = tasks.create_task(queue.take())
        await asyncio.sleep(0)
        assert not taking.done()
        queue.put(Token("a"))
        queue.put(Token("b"))
        assert await taking == tokens("a", "b")


async def test_what_was_taken_is_not_taken_again() -> None:
    queue = EventQueue()
    async with asyncio.timeout(BOUND_S):
        queue.put(Token("a"))
        first = await queue.take()
        queue.put(Token("b"))
        assert (first, await queue.take()) == (tokens("a"), tokens("b"))


async def test_a_closed_queue_is_drained_and_then_empty_for_ever() -> None:
    queue = EventQueue()
    queue.put(Token("a"))
    queue.close()
    queue.close()
    async with asyncio.timeout(BOUND_S):
        assert await queue.take() == tokens("a")
        assert await queue.take() == []
        assert await queue.take() == []


async def test_closing_wakes_the_taker() -> None:
    queue = EventQueue()
    async with asyncio.timeout(BOUND_S), asyncio.TaskGroup() as tasks:
        taking = tasks.create_task(queue.take())
        await asyncio.sleep(0)
        queue.close()
        assert await taking == []


async def test_a_cancelled_taker_loses_nothing() -> None:
    queue = EventQueue()
    async with asyncio.timeout(BOUND_S):
        for woken in (False, True):  # cancelled while it waits, and after an event woke it
            taking = asyncio.ensure_future(queue.take())
            await asyncio.sleep(0)
            if woken:
                queue.put(Token("a"))
            taking.cancel()
            await asyncio.wait({taking})
            assert taking.cancelled()
        queue.put(Token("b"))
        assert await queue.take() == tokens("a", "b")


async def test_events_of_many_loop_passes_arrive_in_order_and_none_is_lost() -> None:
    queue, taken = EventQueue(), list[Event]()

    async def take() -> None:
        while events := await queue.take():
            taken.extend(events)

    async with asyncio.timeout(BOUND_S), asyncio.TaskGroup() as tasks:
        tasks.create_task(take())
        for number in range(1000):
            queue.put(Token(str(number)))
            if number % 7 == 0:
                await asyncio.sleep(0)
        queue.close()
    assert taken == tokens(*map(str, range(1000)))


async def test_an_idle_taker_is_not_woken_for_what_can_be_handed_over() -> None:
    queue, handed = EventQueue(), list[Event]()

    def hand_over(event: Event) -> bool:
        if event == Token("wait"):
            return False
        handed.append(event)
        return True

    queue.hand_over = hand_over
    queue.put(Token("before anybody takes"))
    async with asyncio.timeout(BOUND_S), asyncio.TaskGroup() as tasks:
        assert await queue.take() == tokens("before anybody takes")
        queue.put(Token("the taker is still busy"))
        assert await queue.take() == tokens("the taker is still busy")
        taking = tasks.create_task(queue.take())
        await asyncio.sleep(0)
        queue.put(Token("a"))
        queue.put(Token("b"))
        assert handed == tokens("a", "b")
        queue.put(Token("wait"))
        queue.put(Token("c"))  # does not overtake
        assert await taking == tokens("wait", "c")
        assert handed == tokens("a", "b")
