"""Cursors as they come back from clients, and from those who make them up."""

import secrets

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.errors import BadCursor
from app.wire.cursor import Cursor, parse_cursor, parse_seq

RUN = "AbCdEfGhIjKlMnOpQrSt-_"  # 22 characters, as 16 random bytes give
MALFORMED = [
    "",
    ".",
    RUN,
    f"{RUN}.",
    ".1",
    f"{RUN[:-1]}.1",  # too short to be one of ours
    f"{RUN * 3}.1",  # too long for an id under 64 bytes
    f"{RUN}.-1",
    f"{RUN}.+1",
    f"{RUN}.01",
    f"{RUN}.1.1",
    f"{RUN}.1x",
    f" {RUN}.1",
    f"{RUN}.1 ",
    f"{RUN}.1\n",
    f"{RUN}.1\n\ndata: x",
    f"{RUN}.1\0",
    f"{RUN}.1_000",
    f"{RUN}.\u0661",  # a digit in Arabic
    f"{RUN[:-1]}\u00e9.1",
    f"{RUN[:-1]}/.1",
    f"{RUN}.{10**18}",
]


def test_a_cursor_is_a_run_and_a_number() -> None:
    assert parse_cursor(f"{RUN}.17") == Cursor(RUN, 17)


def test_zero_is_before_the_first_event() -> None:
    assert parse_cursor(f"{RUN}.0") == Cursor(RUN, 0)


@pytest.mark.parametrize("value", MALFORMED)
def test_a_malformed_cursor_is_refused(value: str) -> None:
    with pytest.raises(BadCursor):
        parse_cursor(value)


def test_every_id_that_we_issue_is_a_cursor() -> None:
    for _ in range(100):
        run_id = secrets.token_urlsafe(16)
        assert parse_cursor(f"{run_id}.1000001") == Cursor(run_id, 1_000_001)


def test_the_longest_cursor_is_under_64_bytes() -> None:
    longest = f"{RUN * 2}.{10**18 - 1}"
    assert parse_cursor(longest) == Cursor(RUN * 2, 10**18 - 1)
    assert len(longest) < 64


@given(st.text())
def test_whatever_comes_is_read_exactly_or_refused(value: str) -> None:
    try:
        cursor = parse_cursor(value)
    except BadCursor:
        return
    assert f"{cursor.run_id}.{cursor.seq}" == value


@given(st.integers(min_value=0, max_value=10**18 - 1))
def test_a_number_behind_after_is_read(seq: int) -> None:
    assert parse_seq(str(seq)) == seq


@pytest.mark.parametrize(
    "value", ["", "-1", "+1", "01", "1.0", " 1", "1\n", "x", "\u0661", "9" * 19]
)
def test_a_malformed_number_behind_after_is_refused(value: str) -> None:
    with pytest.raises(BadCursor):
        parse_seq(value)
