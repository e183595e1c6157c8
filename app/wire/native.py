"""The native dialect: one event as one frame. Pure: no clock, no socket, no asyncio.

1. LF line ends, because clients exist that know no other; one line of ASCII JSON, because clients
   exist that split at U+2028 (``dialects.md`` F1 and F4). ASCII JSON holds no line end and no NUL
   as such, so text from a model can forge neither a field nor a frame (WHATWG HTML 9.2.6).
2. ``id``, ``event`` and ``retry`` come from us alone, never from a request or a model.
3. A heartbeat is a comment without a blank line after it: lax clients dispatch an event on one.
"""

import json
from json.encoder import encode_basestring_ascii
from typing import Any

from msgspec import structs

from app.events.model import Done, Event, Start, Token

HEARTBEAT = b": hb\n"
_NOT_SENT = {
    Start: ("retry_ms",),
    Done: ("finished_at", "frees_key", "answered_by", "attempts"),
}
_RENAMED = {"tool": "name"}  # ``name`` is the event's own in our structs


def encode(run_id: str, seq: int, event: Event) -> bytes:
    """The frame of event number ``seq`` of a run, its blank line included.

    Text must hold no lone surrogate: ``app.llm.text`` sees to it where text comes in.
    """
    if type(event) is Token:  # nearly every event is one
        text = encode_basestring_ascii(event.text)
        return f'id: {run_id}.{seq}\nevent: token\ndata: {{"text":{text}}}\n\n'.encode("ascii")
    data = json.dumps(payload(event), separators=(",", ":"), allow_nan=False)
    retry = f"retry: {event.retry_ms}\n" if type(event) is Start else ""
    return f"id: {run_id}.{seq}\nevent: {event.name}\n{retry}data: {data}\n\n".encode("ascii")


def unnumbered(event: Event) -> bytes:
    """The frame of an event that one reader gets and no log has. It has no id, so that the reader's
    cursor stays where it is (WHATWG HTML 9.2.6)."""
    data = json.dumps(payload(event), separators=(",", ":"), allow_nan=False)
    return f"event: {event.name}\ndata: {data}\n\n".encode("ascii")


def payload(event: Event) -> dict[str, Any]:
    """The JSON object of an event, by contract section 4."""
    fields: dict[str, Any] = {
        _RENAMED.get(name, name): value for name, value in structs.asdict(event).items()
    }
    for name in _NOT_SENT.get(type(event), ()):
        del fields[name]
    if "usage" in fields:
        fields["usage"] = structs.asdict(fields["usage"])
    return fields
