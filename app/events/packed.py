"""Events as they lie in Redis and go through its channels: MessagePack.

One batch: ``[epoch, first number, [event, …]]``. A token, which nearly every event is, is its text
alone; another event is ``[name, field, …]``.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import msgspec
from msgspec import structs

from app.events.model import (
    Done,
    Draft,
    Error,
    Event,
    Final,
    Reasoning,
    Retract,
    RunRecord,
    Start,
    Token,
    ToolCall,
    ToolResult,
    Usage,
)

_KINDS: dict[str, type[Event]] = {
    kind.name: kind
    for kind in (Start, Token, Reasoning, Draft, Retract, ToolCall, ToolResult, Final, Error, Done)
}
_encoder = msgspec.msgpack.Encoder()


class Batch(NamedTuple):
    """``first``: the number of the first event; the others follow without gaps."""

    epoch: int
    first: int
    events: list[Event]

    @property
    def last(self) -> int:
        return self.first + len(self.events) - 1


def pack(epoch: int, first: int, events: Sequence[Event]) -> bytes:
    """Raises ``TypeError`` for a value that no event holds."""
    return _encoder.encode(
        (epoch, first, [event.text if type(event) is Token else _packed(event) for event in events])
    )


def unpack(blob: bytes) -> Batch:
    """Raises ``ValueError``."""
    epoch, first, events = _decode_batch(blob)
    return Batch(
        epoch,
        first,
        [Token(event) if type(event) is str else _unpacked(event) for event in events],
    )


def pack_record(record: RunRecord) -> bytes:
    return _encoder.encode(record)


def unpack_record(blob: bytes) -> RunRecord:
    """Raises ``ValueError``. Takes records of another version of the gateway: fields that it does
    not know are left out, those that have a default may be missing."""
    return _decode_record(blob)


def _packed(event: Event) -> tuple[Any, ...]:
    return (event.name, *structs.astuple(event))


def _unpacked(packed: list[Any]) -> Event:
    name, *fields = packed
    if not isinstance(name, str) or (kind := _KINDS.get(name)) is None:
        raise ValueError(f"no event is called {name}")
    try:
        if at := _USAGE_AT.get(kind):
            fields[at] = msgspec.convert(fields[at], Usage)
        return kind(*fields)
    except (TypeError, IndexError) as error:  # of another version of the gateway
        raise ValueError(f"no {name} is like that") from error


_USAGE_AT: dict[type[Event], int] = {
    kind: kind.__struct_fields__.index("usage")
    for kind in _KINDS.values()
    if "usage" in kind.__struct_fields__
}
_decode_batch: Callable[[bytes], tuple[int, int, list[Any]]] = msgspec.msgpack.Decoder(
    tuple[int, int, list[Any]]
).decode
_decode_record: Callable[[bytes], RunRecord] = msgspec.msgpack.Decoder(RunRecord).decode
