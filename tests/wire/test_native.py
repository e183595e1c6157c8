"""The native dialect: exact bytes, and nothing that a model says can forge a frame."""

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from app.errors import Draining, GatewayError, UpstreamBroken
from app.events.model import (
    Done,
    Draft,
    Error,
    Event,
    Final,
    Reasoning,
    Retract,
    Start,
    Token,
    ToolCall,
    ToolResult,
    Usage,
)
from app.wire.native import HEARTBEAT, encode, payload
from app.wire.parse import Event as Parsed
from app.wire.parse import EventParser, parse

RUN = "AbCdEfGhIjKlMnOpQrSt-_"
USAGE = Usage(3, 5, 8, estimated=False)
USAGE_JSON = '{"input_tokens":3,"output_tokens":5,"total_tokens":8,"estimated":false}'
START = Start(RUN, "c1", "gpt", 10_000, "req-1", 1234)
FRAMES: list[tuple[Event, str]] = [
    (
        START,
        f'event: start\nretry: 1234\ndata: {{"run_id":"{RUN}","conversation_id":"c1",'
        '"model":"gpt","heartbeat_ms":10000,"request_id":"req-1"}',
    ),
    (Token("Hel"), 'event: token\ndata: {"text":"Hel"}'),
    (Token("a\nb\r\u2028\0"), 'event: token\ndata: {"text":"a\\nb\\r\\u2028\\u0000"}'),
    (Token("\U0001f600"), 'event: token\ndata: {"text":"\\ud83d\\ude00"}'),
    (Reasoning('"'), 'event: reasoning\ndata: {"text":"\\""}'),
    (Draft("Thought:"), 'event: draft\ndata: {"text":"Thought:"}'),
    (Retract("Let me"), 'event: retract\ndata: {"text":"Let me"}'),
    (
        ToolCall("c1", "add", '{"a": 1}'),
        'event: tool_call\ndata: {"id":"c1","name":"add","arguments":"{\\"a\\": 1}"}',
    ),
    (
        ToolResult("c1", "add", "é", is_error=False),
        'event: tool_result\ndata: {"id":"c1","name":"add","content":"\\u00e9","is_error":false}',
    ),
    (
        Final("Hi\n", "stop", USAGE, "gpt"),
        'event: final\ndata: {"text":"Hi\\n","finish_reason":"stop",'
        f'"usage":{USAGE_JSON},"model":"gpt"}}',
    ),
    (
        Error.because(UpstreamBroken(), "req-1"),
        'event: error\ndata: {"code":"upstream_broken","message":"The model\'s answer broke off '
        'before its end.","retryable":true,"request_id":"req-1"}',
    ),
    (
        Done("completed", USAGE, 1.5, frees_key=True),
        f'event: done\ndata: {{"status":"completed","usage":{USAGE_JSON}}}',
    ),
]
text_without_surrogates = st.text(st.characters(exclude_categories=["Cs"]))


@pytest.mark.parametrize(("event", "rest"), FRAMES, ids=lambda value: getattr(value, "name", ""))
def test_a_frame_is_exactly_these_bytes(event: Event, rest: str) -> None:
    assert encode(RUN, 7, event) == f"id: {RUN}.7\n{rest}\n\n".encode("ascii")


def test_every_event_has_its_vector() -> None:
    assert {type(event) for event, _ in FRAMES} == set(Event.__subclasses__())


def test_only_start_tells_when_to_come_back() -> None:
    retrying = [event for event, _ in FRAMES if b"\nretry:" in encode(RUN, 1, event)]
    assert retrying == [START]


@given(st.one_of(text_without_surrogates, st.text("\r\n\0: dataeventid\u2028\ufeff")))
def test_any_text_comes_back_from_one_line_of_ascii(text: str) -> None:
    for event in (Token(text), Reasoning(text), Final(text, text, USAGE, text)):
        frame = encode(RUN, 1, event)
        assert re.fullmatch(rb"(?:[ -~]+\n){3}\n", frame)
        (read,) = parse(frame)
        assert (read.id, read.event) == (f"{RUN}.1", event.name)
        assert json.loads(read.data)["text"] == text


@given(text_without_surrogates)
def test_the_short_way_for_tokens_is_the_same_as_the_long_one(text: str) -> None:
    long_way = json.dumps({"text": text}, separators=(",", ":"))
    assert encode(RUN, 1, Token(text)).splitlines()[2] == f"data: {long_way}".encode()


def test_what_is_ours_alone_stays_off_the_wire() -> None:
    assert "retry_ms" not in payload(START)
    assert set(payload(Done("failed", USAGE, 1.5, frees_key=True))) == {"status", "usage"}


def test_a_payload_is_the_events_fields_in_order() -> None:
    event = Final("a", "stop", USAGE, "m")
    assert list(payload(event)) == ["text", "finish_reason", "usage", "model"]
    assert payload(event)["usage"] == structs.asdict(USAGE)


def test_a_number_that_json_does_not_know_is_refused() -> None:
    with pytest.raises(ValueError, match="JSON"):
        encode(RUN, 1, Start(RUN, None, "m", float("nan"), "r", 1000))  # type: ignore[arg-type]


def test_a_heartbeat_is_no_event_wherever_it_stands() -> None:
    assert HEARTBEAT == b": hb\n"
    frames = [encode(RUN, seq, Token("x")) for seq in (1, 2)]
    wire = HEARTBEAT + HEARTBEAT.join(frames) + HEARTBEAT
    parser = EventParser()
    assert list(parser.feed(wire)) == [
        Parsed(f"{RUN}.{seq}", "token", '{"text":"x"}') for seq in (1, 2)
    ]


@pytest.mark.parametrize("error", [Draining("somewhere inside"), UpstreamBroken()])
def test_an_error_event_says_only_the_constant_message(error: GatewayError) -> None:
    event = Error.because(error, "req-1")
    assert event == Error(error.code, type(error).message, error.retryable, "req-1")
