"""The upstream's bytes against the vectors that the clients' parsers are held to."""

import json
from pathlib import Path

import pytest

from app.llm.sse import DataSplitter

VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "sse.json").read_text())["vectors"]


def data_of(*chunks: bytes) -> list[str]:
    splitter = DataSplitter()
    return [data.decode(errors="replace") for chunk in chunks for data in splitter.feed(chunk)]


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector["name"])
def test_the_data_of_every_event_however_the_network_cut_it(vector: dict[str, object]) -> None:
    wire = str(vector["wire"]).encode("latin-1")
    events = vector["events"]
    assert isinstance(events, list)
    expected = [event["data"] for event in events]
    for cut in range(len(wire) + 1):
        assert data_of(wire[:cut], wire[cut:]) == expected, cut
    assert data_of(*(wire[k : k + 1] for k in range(len(wire)))) == expected


def test_many_events_in_one_read_come_at_once() -> None:
    assert data_of(b"data: a\n\ndata: b\n\n: ping\n\ndata: [DONE]\n\n") == ["a", "b", "[DONE]"]


def test_an_event_of_a_mebibyte_in_small_reads_is_searched_once() -> None:
    text = b"x" * 2**20
    reads = [b"data: ", *(text[k : k + 1024] for k in range(0, len(text), 1024)), b"\n\n"]
    assert data_of(*reads) == [text.decode()]
