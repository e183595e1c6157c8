"""A mirror with neither Redis nor a network: whatever is lost, doubled, late or written again, who
reads it sees 1 to n once, in order, and then the ending."""

import asyncio
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.events.mirror import JUMP, LARGEST_PAGE, Found, Mirror
from app.events.model import Done, Token
from app.events.packed import pack
from app.events.redis_wire import ErrorReply
from tests.events.stored_run import KEYS, RUN, Stored, token, up_to

pytestmark = pytest.mark.anyio


class Wants:
    """A keeper that does nothing by itself."""

    def __init__(self) -> None:
        self.count = 0
        self.bytes = 0

    def want(self, mirror: Mirror) -> None:
        self.count += 1

    def grew(self, mirror: Mirror, size: int) -> None:
        self.bytes += size


def mirror() -> Mirror:
    return Mirror(RUN.run_id, Wants(), 0.0)


def look(mirror: Mirror, stored: Stored) -> Found:
    known, page = mirror.ask(KEYS)
    return mirror.answer(stored.known(known), stored.page(page))


def seen(mirror: Mirror) -> list[int]:
    return [entry.seq for entry in mirror.log.entries]


async def test_a_look_finds_all_that_is_stored_and_whose_it_is() -> None:
    stored, ours = Stored(), mirror()
    stored.append(3)
    stored.append(2)
    assert look(ours, stored) is Found.WHOLE
    assert seen(ours) == up_to(5)
    assert ours.log.record == RUN


async def test_a_run_that_has_said_nothing_is_whole() -> None:
    assert look(mirror(), Stored()) is Found.WHOLE


async def test_a_run_that_is_not_there_is_missing() -> None:
    stored, ours = Stored(), mirror()
    stored.is_there = False
    assert look(ours, stored) is Found.MISSING
    assert not ours.is_known


async def test_a_message_that_follows_is_taken_and_what_was_seen_is_left_out() -> None:
    stored, ours = Stored(), mirror()
    for count in (2, 3, 1):
        stored.append(count)
    first, second, third = stored.on_air
    for message in (first, first, second, first, second, third):
        ours.heard(message)
    ours.heard(pack(1, 4, [token(seq) for seq in range(4, 9)]))  # 4 to 6 were seen
    assert seen(ours) == up_to(8)
    assert [entry.event for entry in ours.log.entries] == [token(seq) for seq in up_to(8)]


async def test_a_gap_is_not_taken_and_leads_to_a_look() -> None:
    stored, keeper = Stored(), Wants()
    ours = Mirror(RUN.run_id, keeper, 0.0)
    stored.append(1)
    stored.append(1)
    ours.heard(stored.on_air[1])
    assert (seen(ours), keeper.count) == ([], 1)
    ours.heard(b"no batch")
    assert keeper.count == 2


async def test_a_message_of_a_writer_that_has_been_replaced_is_dropped() -> None:
    stored, ours = Stored(), mirror()
    stored.append(2)
    stored.epoch += 1
    look(ours, stored)
    ours.heard(pack(1, 3, [Token("zombie")]))
    assert seen(ours) == up_to(2)
    ours.heard(pack(3, 3, [token(3)]))
    ours.heard(pack(2, 4, [Token("zombie")]))
    assert seen(ours) == up_to(3)


async def test_what_is_heard_during_a_look_is_taken_behind_its_answer() -> None:
    stored, ours = Stored(), mirror()
    stored.append(2)
    known, page = ours.ask(KEYS)
    answers = stored.known(known), stored.page(page)
    stored.append(3)
    stored.append(1)
    for message in stored.on_air[1:]:
        ours.heard(message)
    assert seen(ours) == []
    assert ours.answer(*answers) is Found.WHOLE
    assert seen(ours) == up_to(6)


async def test_a_gap_during_a_look_leads_to_another() -> None:
    stored, ours = Stored(), mirror()
    known, page = ours.ask(KEYS)
    answers = stored.known(known), stored.page(page)
    stored.append(1)
    stored.append(1)
    ours.heard(stored.on_air[1])
    assert ours.answer(*answers) is Found.MORE
    assert look(ours, stored) is Found.WHOLE
    assert seen(ours) == up_to(2)


async def test_a_jump_is_taken_only_behind_all_that_is_stored() -> None:
    stored, ours = Stored(), mirror()
    stored.append(2)
    look(ours, stored)
    stored.append(2)
    stored.take_over()
    ours.heard(stored.on_air[-1])
    assert seen(ours) == up_to(2)
    assert look(ours, stored) is Found.WHOLE
    assert seen(ours) == [*up_to(4), JUMP]
    assert ours.is_over


async def test_a_long_log_comes_in_pages() -> None:
    stored, ours, pages = Stored(), mirror(), 1
    for _ in range(2000):
        stored.append(1)
    stored.take_over()
    while look(ours, stored) is Found.MORE:
        pages += 1
    assert pages > 2000 / LARGEST_PAGE
    assert seen(ours) == [*up_to(2000), JUMP]


async def test_a_hole_in_what_is_stored_is_not_skipped() -> None:
    stored, ours = Stored(), mirror()
    for _ in range(3):
        stored.append(1)
    lost = stored.entries.pop(1)
    assert look(ours, stored) is Found.LACKING
    assert seen(ours) == [1]
    stored.entries.insert(1, lost)
    assert look(ours, stored) is Found.WHOLE
    assert seen(ours) == up_to(3)


async def test_a_log_of_large_entries_comes_in_small_pages() -> None:
    stored, ours = Stored(), mirror()
    for seq in range(1, 101):
        stored.store(seq, [Token("x" * 100_000)])
    grown = [0]
    while look(ours, stored) is Found.MORE:
        grown.append(ours.log.bytes)
    assert seen(ours) == up_to(100)
    assert max(after - before for before, after in pairwise(grown[1:])) < 1 << 20


async def test_an_error_reply_and_an_unreadable_entry_are_asked_for_again() -> None:
    stored, ours = Stored(), mirror()
    stored.append(1)
    known, page = ours.ask(KEYS)
    assert ours.answer(ErrorReply("WRONGTYPE"), stored.page(page)) is Found.LACKING
    known, page = ours.ask(KEYS)
    assert ours.answer(stored.known(known), [[b"", [b"b", b"?"]]]) is Found.LACKING
    assert look(ours, stored) is Found.WHOLE


async def test_a_log_that_lost_its_end_is_waited_for() -> None:
    stored, ours = Stored(), mirror()
    stored.append(1)
    stored.append(1)
    look(ours, stored)
    stored.lose_tail(1)
    assert look(ours, stored) is Found.LACKING
    stored.append(3)
    assert look(ours, stored) is Found.WHOLE
    assert seen(ours) == up_to(4)


STEPS = (
    *("append", "append", "hear", "hear", "lose", "double", "swap"),
    *("ask", "known", "page", "answer", "unanswered"),
    *("empty", "lose tail", "take over", "end"),
)


class Play:
    """One interleaving. A look has three moments at Redis, anything may happen between them."""

    def __init__(self) -> None:
        self.stored = Stored()
        self.mirror = mirror()
        self.commands: tuple[Any, Any] | None = None
        self.known: Any = None
        self.page: Any = None

    def step(self, name: str, count: int) -> None:
        stored, ours = self.stored, self.mirror
        match name:
            case "append" if not stored.is_ended:
                stored.append(count)
            case "hear" if stored.on_air:
                ours.heard(stored.on_air.pop(0))
            case "lose" if stored.on_air:
                stored.on_air.pop(0)
            case "double" if stored.on_air:
                ours.heard(stored.on_air[0])
            case "swap" if stored.on_air:
                stored.on_air.append(stored.on_air.pop(0))
            case "ask" if self.commands is None:
                self.commands = ours.ask(KEYS)
            case "known" if self.commands and self.known is None:
                self.known = stored.known(self.commands[0])
            case "page" if self.commands and self.known and self.page is None:
                self.page = stored.page(self.commands[1])
            case "answer" if self.page is not None:
                ours.answer(self.known, self.page)
                self.commands = self.known = self.page = None
            case "unanswered" if self.commands:
                ours.unanswered()
                self.commands = self.known = self.page = None
            case "empty" if not stored.is_ended:
                stored.open()
            case "lose tail" if not stored.is_ended:
                stored.lose_tail(min(count, len(stored.entries)))
            case "take over" if not stored.is_ended:
                stored.take_over()
            case "end" if not stored.is_ended:
                stored.end()


@settings(deadline=None, max_examples=400)
@given(st.lists(st.tuples(st.sampled_from(STEPS), st.integers(1, 30)), max_size=120))
def test_every_reader_sees_each_event_once_and_in_order_and_then_the_ending(
    steps: list[tuple[str, int]],
) -> None:
    async def play() -> None:
        one = Play()
        for name, count in steps:
            one.step(name, count)
            assert seen(one.mirror)[: one.stored.told] == up_to(
                min(len(one.mirror.log.entries), one.stored.told)
            )
        if not one.stored.is_ended:
            one.stored.end()
        for _ in range(10):
            if one.mirror.is_over:
                break
            one.mirror.unanswered()
            look(one.mirror, one.stored)
        *tokens, ending = one.mirror.log.entries
        assert [entry.seq for entry in tokens] == up_to(len(tokens))
        assert all(entry.event == token(entry.seq) for entry in tokens)
        assert isinstance(ending.event, Done)
        assert ending.seq == (JUMP if ending.event.status == "failed" else one.stored.told + 1)

    asyncio.run(play())
