"""One model turn: what its chunks become, where they call tools."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.conversations.model import Step
from app.errors import AnswerTooLarge
from app.events.model import Draft, Event, Reasoning, Retract, Token, ToolCall, ToolResult, Usage
from app.events.queue import EventQueue
from app.llm.catalogue import ModelEntry
from app.llm.clocks import TurnClocks
from app.llm.turn import MAX_CALLS, Turn
from tests.llm.making import entry, prompt

pytestmark = pytest.mark.anyio

Piece = tuple[int, str, str, str]


class Clocks(TurnClocks):
    """That never run."""

    def __init__(self) -> None:
        super().__init__(first_token_s=1, stall_s=1)

    def arrived(self, *, token: bool) -> None:
        pass

    def finished(self) -> None:
        pass


class Played:
    """A turn that is told ``parts``: texts, and pieces of calls."""

    def __init__(
        self,
        *parts: str | Piece,
        tools: tuple[str, ...] = ("f",),
        style: ModelEntry | None = None,
        aside: bool = False,
        room: int = 2**20,
        steps: tuple[Step, ...] = (),
    ) -> None:
        self.queue = EventQueue()
        self.turn = Turn(
            prompt(entry=style, tools=tools),
            self.queue,
            Clocks(),
            steps=steps,
            max_argument_bytes=room,
            aside=aside,
        )
        for part in parts:
            if isinstance(part, str):
                self.turn.chunk(part, "", tool_call=False)
            else:
                self.turn.chunk("", "", tool_call=True)
                self.turn.tool_call_piece(*part)
        self.turn.flush()

    async def events(self) -> list[Event]:
        self.queue.close()
        return await self.queue.take()

    def calls(self, *taken: str) -> list[tuple[str, str, str]]:
        return [(call.id, call.tool, call.arguments) for call in self.turn.calls(taken)]


# -- preambles ----------------------------------------------------------------------------------


async def test_the_text_before_a_call_is_taken_back_once_and_what_follows_is_draft() -> None:
    played = Played(
        "Let me ", "look.", (0, "a", "f", ""), "So", (0, "", "", "{}"), (1, "b", "f", "")
    )
    assert await played.events() == [
        Token("Let me "),
        Token("look."),
        Retract("Let me look."),
        Draft("So"),
    ]
    assert played.turn.preamble == "Let me look."
    assert not played.turn.has_answered


async def test_a_call_without_a_preamble_takes_nothing_back() -> None:
    played = Played((0, "a", "f", "{}"))
    assert (await played.events(), played.turn.preamble) == ([], "")


async def test_half_a_character_is_let_out_before_it_is_taken_back() -> None:
    played = Played("a\ud83d", (0, "a", "f", ""), "b\ud83d", "\ude00")
    assert await played.events() == [
        Token("a"),
        Token("\ufffd"),
        Retract("a\ufffd"),
        Draft("b"),
        Draft("\U0001f600"),
    ]


async def test_what_a_filter_holds_back_is_let_out_before_it_is_taken_back() -> None:
    tags = entry(reasoning="tags")
    played = Played("<think>why</think>text <th", (0, "a", "f", ""), "x <th", style=tags)
    assert await played.events() == [
        Reasoning("why"),
        Token("text "),
        Token("<th"),
        Retract("text <th"),
        Draft("x "),
        Draft("<th"),
    ]


async def test_only_the_answer_is_taken_back() -> None:
    react = entry(answer="react")
    played = Played("Thought: hm\nFinal Answer: 42", (0, "a", "f", ""), style=react)
    events = await played.events()
    assert events[-1] == Retract("42")
    assert "".join(event.text for event in events if isinstance(event, Token)) == "42"


async def test_what_is_said_aside_is_draft() -> None:
    played = Played("a", "b", (0, "c", "f", ""), "d", aside=True)
    assert await played.events() == [Draft("a"), Draft("b"), Draft("d")]
    assert not played.turn.has_answered


async def test_calls_of_a_model_that_was_offered_no_tools_are_ignored() -> None:
    played = Played("a", (0, "a", "f", "x" * 100), "b", tools=(), room=1)
    assert await played.events() == [Token("a"), Token("b")]
    assert (played.calls(), played.turn.has_answered) == ([], True)


async def test_a_runnable_brings_its_own_tools() -> None:
    turn = Turn(prompt(entry=entry(runnable="x:y")), EventQueue(), Clocks())
    turn.tool_call_piece(0, "a", "f", "{}")
    assert turn.calls() == (ToolCall("a", "f", "{}"),)


# -- pieces of calls ----------------------------------------------------------------------------


@given(
    st.lists(st.text(max_size=30), min_size=1, max_size=4),
    st.integers(0, 2**32),
)
async def test_pieces_of_arguments_add_up_wherever_they_are_cut(
    arguments: list[str], seed: int
) -> None:
    """And however calls take turns, as long as each one's pieces keep their order."""
    chance = random.Random(seed)
    left = [list(text) for text in arguments]
    parts: list[Piece] = [(at, f"id{at}", "f", "") for at in range(len(left))]
    while any(left):
        at = chance.choice([at for at, rest in enumerate(left) if rest])
        size = chance.randint(1, len(left[at]))
        parts.append((at, "", "", "".join(left[at][:size])))
        del left[at][:size]
    calls = Played(*parts).calls()
    assert calls == [(f"id{at}", "f", text) for at, text in enumerate(arguments)]


async def test_halves_of_a_character_meet_in_arguments_and_lone_ones_are_replaced() -> None:
    played = Played((0, "a", "f", '{"x": "\ud83d'), (0, "", "", '\ude00\ud83d"}'))
    assert played.calls() == [("a", "f", '{"x": "\U0001f600\ufffd"}')]


async def test_an_id_or_name_that_is_told_again_is_the_same_call() -> None:
    pieces = [(0, "a", "f", '{"x"'), (0, "a", "f", ": {}"), (0, "a", "f", "}")]
    assert Played(*pieces).calls() == [("a", "f", '{"x": {}}')]


async def test_a_name_that_comes_after_the_id_is_taken() -> None:
    assert Played((0, "a", "", ""), (0, "", "f", "{}")).calls() == [("a", "f", "{}")]


async def test_another_id_under_the_same_number_is_another_call() -> None:
    pieces = [(0, "a", "f", "{"), (0, "", "", "}"), (0, "b", "f", "{"), (0, "", "", "}")]
    assert Played(*pieces).calls() == [("a", "f", "{}"), ("b", "f", "{}")]


async def test_whole_calls_without_ids_under_the_same_number_are_several() -> None:
    played = Played((0, "", "f", '{"x": 1}'), (0, "", "g", '{"x": 2}'))
    (first, *one), (second, *two) = played.calls()
    assert (one, two) == (["f", '{"x": 1}'], ["g", '{"x": 2}'])
    assert "" not in {first, second}
    assert first != second


async def test_a_name_told_with_each_piece_is_one_call_without_ids_too() -> None:
    played = Played((0, "", "f", '{"x": {'), (0, "", "f", '"y": {}'), (0, "", "f", "}}"))
    assert [call[1:] for call in played.calls()] == [("f", '{"x": {"y": {}}}')]


async def test_each_call_gets_an_id_that_no_other_has() -> None:
    played = Played(*((at, call_id, "f", "{}") for at, call_id in enumerate(["", "a", "a", "b"])))
    ids = [call_id for call_id, *_ in played.calls("b", "c")]
    assert ids[1] == "a"
    assert len({*ids, "b", "c", ""}) == 7
    assert played.turn.given_ids == ("", "a", "a", "b")


# -- bounds -------------------------------------------------------------------------------------


async def test_a_turn_makes_so_many_calls_and_no_more() -> None:
    pieces = [(at, f"id{at}", "f", "{}") for at in range(MAX_CALLS)]
    assert len(Played(*pieces).calls()) == MAX_CALLS
    with pytest.raises(AnswerTooLarge):
        Played(*pieces, (MAX_CALLS, "more", "f", ""))


@pytest.mark.parametrize(
    "piece", [(0, "", "", "é" * 50), (0, "x" * 99, "", ""), (0, "", "x" * 99, "")]
)
async def test_calls_hold_so_many_bytes_and_no_more(piece: Piece) -> None:
    Played(piece, room=100)
    with pytest.raises(AnswerTooLarge):
        Played(piece, piece, room=100)


# -- usage --------------------------------------------------------------------------------------


async def test_arguments_count_in_the_estimate_of_what_was_answered() -> None:
    few = Played((0, "a", "f", "")).turn.usage()
    assert few == Usage(1, 1, 2, estimated=True)
    many = Played((0, "a", "f", "x" * 398)).turn.usage()
    assert many == Usage(1, 100, 101, estimated=True)


async def test_earlier_steps_count_in_the_estimate_of_what_was_asked() -> None:
    call = ToolCall("a", "f", "x" * 8)
    step = Step("y" * 4, (call,), (ToolResult("a", "f", "z" * 12, is_error=False),))
    assert Played(steps=(step,)).turn.usage().input_tokens == 1 + 1 + 2 + 3


async def test_text_that_stands_is_an_answer() -> None:
    assert Played("a").turn.has_answered
    assert not Played().turn.has_answered
