"""What one process remembers of sessions that were signed out."""

import pytest

from app.access import signed_out
from app.access.signed_out import SESSION_S, MemorySignedOut
from tests.access.ring import Clock


def test_it_is_remembered_for_a_sessions_longest_life() -> None:
    clock = Clock()
    known = MemorySignedOut(clock)
    known.add("a")
    clock.now += SESSION_S - 1
    known.add("a")
    known.add("b")
    assert "a" in known
    clock.now += 1
    known.add("c")
    assert list(known.all()) == ["b", "c"]


def test_the_oldest_goes_where_there_are_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signed_out, "KEPT", 3)
    known = MemorySignedOut()
    for session_id in "abcda":
        known.add(session_id)
    assert list(known.all()) == ["c", "d", "a"]
    assert "b" not in known


def test_one_caller_alone_cannot_sign_out_so_many() -> None:
    a_minute = 120  # contract section 1
    assert a_minute * SESSION_S / 60 < signed_out.KEPT
