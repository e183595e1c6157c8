"""Packed events come back as they were, whatever they hold, and take little room."""

import msgspec
import pytest
from msgspec import structs

from app.events.model import (
    Draft,
    Error,
    Event,
    Reasoning,
    Retract,
    Token,
    ToolCall,
    ToolResult,
)
from app.events.packed import Batch, pack, pack_record, unpack, unpack_record
from tests.events.making import done, final, record, start

RUN = record("k")
EVENTS: list[Event] = [
    start(RUN),
    Token("a"),
    Token(""),
    Token("\0\u2028\U0001f600 \r\n"),
    Reasoning("r"),
    Draft("d"),
    Retract("t"),
    ToolCall("1", "add", '{"a": 1}'),
    ToolResult("1", "add", "2", is_error=False),
    final("a"),
    Error("internal", "m", retryable=False, request_id="q"),
    done("failed", frees_key=True),
]


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: event.name)
def test_every_event_comes_back_as_it_was(event: Event) -> None:
    assert unpack(pack(1, 2, [event])) == Batch(1, 2, [event])


def test_a_batch_knows_its_epoch_and_its_numbers() -> None:
    batch = unpack(pack(3, 40, EVENTS))
    assert batch == Batch(3, 40, EVENTS)
    assert batch.last == 40 + len(EVENTS) - 1


def test_a_record_comes_back_as_it_was() -> None:
    run = structs.replace(RUN, include=frozenset({"tools", "drafts"}), grace_s=None)
    assert unpack_record(pack_record(run)) == run


def test_a_token_takes_little_more_than_its_text() -> None:
    assert len(pack(1, 1000, [Token("tok1 ")] * 64)) < 64 * (len("tok1 ") + 1) + 16


def packed(*event: object) -> bytes:
    return msgspec.msgpack.encode((1, 1, [event]))


@pytest.mark.parametrize(
    "blob",
    [
        b"",
        b"\xc1",
        pack(1, 1, [])[:-1],
        packed("nothing"),
        packed(),
        packed([1]),
        packed("error", "too", "few"),
        packed("token", "too", "many"),
        packed("done", "completed"),
        packed("done", "completed", "no usage", 1.0, False),
    ],
)
def test_what_is_no_batch_is_refused(blob: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011  # msgspec's own, of several kinds
        unpack(blob)


def test_what_no_event_may_hold_is_refused() -> None:
    unspeakable = Error("x", object(), retryable=False, request_id="")  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        pack(1, 1, [unspeakable])
