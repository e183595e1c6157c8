"""The guard sees a token that has become dearer."""

import time

import pytest
import uvloop

from app.events.queue import EventQueue
from tests.bench.guard import ALLOWANCE, COMMITTED, crept, measure

DEARER_S = 100e-6


def test_what_lies_within_the_allowance_passes_and_what_lies_above_does_not() -> None:
    within = {way: ratio * ALLOWANCE * 0.99 for way, ratio in COMMITTED.items()}
    above = {way: ratio * ALLOWANCE * 1.01 for way, ratio in COMMITTED.items()}
    assert crept(within) == []
    assert crept(above) == list(COMMITTED)


def test_a_token_that_has_become_much_dearer_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    put = EventQueue.put

    def dear_put(*arguments: object) -> None:
        until = time.process_time() + DEARER_S
        while time.process_time() < until:
            pass
        put(*arguments)  # type: ignore[arg-type]  # handed on as they came

    monkeypatch.setattr(EventQueue, "put", dear_put)
    assert crept(uvloop.run(measure())) == list(COMMITTED)
