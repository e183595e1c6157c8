"""The Python reader against the shared vectors, cut at every byte."""

import json
import time
from pathlib import Path
from typing import Any

import pytest

from app.wire.parse import Event, EventParser, EventTooLargeError, parse

VECTORS: list[dict[str, Any]] = json.loads(
    (Path(__file__).parents[1] / "vectors" / "sse.json").read_text(encoding="utf-8")
)["vectors"]
MIB = 1024 * 1024


def _assert_reads(vector: dict[str, Any], chunks: list[bytes], where: str) -> None:
    parser = EventParser()
    events = [event for chunk in chunks for event in parser.feed(chunk)]
    assert events == [Event(**event) for event in vector["events"]], where
    assert parser.retry == vector.get("retry"), where
    assert parser.last_event_id == vector.get("last_event_id", ""), where


def _ids(vector: dict[str, Any]) -> str:
    return str(vector["name"]).replace("::", ":")


@pytest.mark.parametrize("vector", VECTORS, ids=_ids)
def test_any_cut_of_the_bytes_gives_the_same_events(vector: dict[str, Any]) -> None:
    wire = vector["wire"].encode("latin-1")
    for cut in range(len(wire) + 1):
        _assert_reads(vector, [wire[:cut], wire[cut:]], f"cut at {cut}")


@pytest.mark.parametrize("vector", VECTORS, ids=_ids)
def test_one_byte_at_a_time_gives_the_same_events(vector: dict[str, Any]) -> None:
    wire = vector["wire"].encode("latin-1")
    _assert_reads(vector, [wire[i : i + 1] for i in range(len(wire))], "byte by byte")


@pytest.mark.parametrize("end", [b"\n\n", b"\r\r", b"\r\n\r"])
def test_an_event_leaves_with_the_byte_that_ends_it(end: bytes) -> None:
    parser = EventParser()
    assert list(parser.feed(b"data: a" + end[:-1])) == []
    assert list(parser.feed(end[-1:])) == [Event("", "message", "a")]


def test_an_id_counts_only_once_its_block_has_ended() -> None:
    parser = EventParser()
    list(parser.feed(b"id: 1\ndata: a\n\nid: 2\ndata: b\n"))
    assert parser.last_event_id == "1"
    list(parser.feed(b"\n"))
    assert parser.last_event_id == "2"


@pytest.mark.parametrize("size", [1, 1024])
def test_reading_a_large_line_in_small_pieces_takes_linear_time(size: int) -> None:
    parser, wire = EventParser(), b"data: " + b"x" * MIB + b"\n\n"
    events: list[Event] = []
    began = time.perf_counter()
    for at in range(0, len(wire), size):
        events += parser.feed(wire[at : at + size])
    assert [len(event.data) for event in events] == [MIB]
    assert time.perf_counter() - began < 10  # about 1 s; quadratic work would take minutes


@pytest.mark.parametrize("wire", [b"data: " + b"x" * 95, b":" * 101, b"data: x\n" * 15])
def test_an_event_above_the_limit_is_refused_and_those_before_it_are_kept(wire: bytes) -> None:
    fed = EventParser(limit=100).feed(b"data: a\n\n" + wire)
    assert next(fed) == Event("", "message", "a")
    with pytest.raises(EventTooLargeError, match="100 bytes"):
        next(fed)


def test_the_limit_is_for_one_event_not_for_the_stream() -> None:
    assert len(list(EventParser(limit=100).feed(b"data: x\ndata: y\n\n" * 50))) == 50


def test_a_whole_body_is_read_in_one_call() -> None:
    assert parse(b"id: 1\ndata: a\n\ndata: b\n") == [Event("1", "message", "a")]
