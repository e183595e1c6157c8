"""Surrogates are repaired wherever the upstream cut them."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.llm.text import SurrogateJoiner

HIGH, LOW, FACE = "\ud83d", "\ude00", "\U0001f600"
any_code_units = st.text(st.one_of(st.characters(), st.sampled_from([HIGH, LOW, FACE])))


def through(*pieces: str) -> str:
    joiner = SurrogateJoiner()
    return "".join([joiner.feed(piece) for piece in pieces]) + joiner.flush()


def code_units(text: str) -> list[str]:
    """UTF-16 code units, each as the Python string that ``\\udxxx`` in JSON gives."""
    raw = text.encode("utf-16-le", "surrogatepass")
    return [chr(int.from_bytes(raw[at : at + 2], "little")) for at in range(0, len(raw), 2)]


def repaired(text: str) -> str:
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


@given(st.text(st.characters(exclude_categories=["Cs"])), st.data())
def test_any_text_cut_anywhere_in_utf16_comes_back_whole(text: str, data: st.DataObject) -> None:
    units = code_units(text)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(units)), max_size=8)))
    bounds = [0, *cuts, len(units)]
    pieces = ["".join(units[a:b]) for a, b in pairwise(bounds)]
    assert through(*pieces) == text


@given(st.lists(any_code_units))
def test_whatever_comes_what_goes_on_is_utf8_and_no_character_is_lost(pieces: list[str]) -> None:
    text = through(*pieces)
    text.encode()
    assert text == repaired("".join(pieces))


@given(st.lists(any_code_units))
def test_no_more_than_half_a_character_is_ever_held_back(pieces: list[str]) -> None:
    joiner, fed, passed = SurrogateJoiner(), "", ""
    for piece in pieces:
        fed += piece
        passed += joiner.feed(piece)
        assert len(code_units(passed)) >= len(code_units(fed)) - 1


@pytest.mark.parametrize(
    ("pieces", "text"),
    [
        ((HIGH, LOW), FACE),
        ((HIGH, "", LOW), FACE),
        ((f"a{HIGH}", f"{LOW}b"), f"a{FACE}b"),
        ((HIGH + LOW,), FACE),
        ((HIGH,), "\ufffd"),
        ((LOW,), "\ufffd"),
        ((HIGH, "x"), "\ufffdx"),
        ((HIGH, HIGH, LOW), f"\ufffd{FACE}"),
        ((LOW, HIGH), "\ufffd\ufffd"),
    ],
)
def test_halves_that_meet_are_joined_and_others_replaced_in_their_place(
    pieces: tuple[str, ...], text: str
) -> None:
    assert through(*pieces) == text


def test_an_unpaired_half_is_replaced_as_soon_as_its_partner_cannot_come() -> None:
    joiner = SurrogateJoiner()
    assert joiner.feed(HIGH) == ""
    assert joiner.feed("x") == "\ufffdx"
    assert joiner.flush() == ""


def test_a_joiner_that_was_flushed_begins_anew() -> None:
    joiner = SurrogateJoiner()
    joiner.feed(HIGH)
    assert (joiner.flush(), joiner.feed(LOW), joiner.flush()) == ("\ufffd", "\ufffd", "")
