"""Read server-sent events: bytes in, events out. Pure: no socket, no clock, no asyncio.

The mirror of ``frontend/sse.js``; both are held to ``tests/vectors/sse.json`` cut at every byte.
The rules are those of WHATWG HTML 9.2.5 and 9.2.6. Two of them are easy to get wrong:

1. A CR ends its line at once, and a LF that follows it is swallowed. Waiting to see whether one
   follows would hold an event back until the next one.
2. An id is buffered until the block ends. Then it counts even if the block had no data; a block
   that was cut off leaves ``last_event_id`` alone, so that a resume asks for it again.

Lines are cut as bytes and decoded one by one: neither CR nor LF is ever part of a longer UTF-8
sequence, so no decoder state has to outlive a line.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

MAX_EVENT_BYTES = 64 * 1024 * 1024
"""One event in the buffer, in bytes. ``final`` repeats a whole answer, by default at most 8 MiB of
UTF-8, as ASCII JSON, which writes one byte as up to six (``\\u0000``): 48 MiB. Without a bound a
peer that never ends a line takes all memory."""

_BOM = b"\xef\xbb\xbf"
_LINE_END = re.compile(rb"\r\n|\n|\r")
_RETRY = re.compile(r"[0-9]{1,15}")  # a longer number is no time that anybody waits


class EventTooLargeError(ValueError):
    """The stream holds an event above the parser's limit; nothing after it can be trusted."""


@dataclass(frozen=True, slots=True)
class Event:
    """One dispatched event. ``id`` is the last one seen, which outlives the block it stood in."""

    id: str
    event: str
    data: str


class EventParser:
    """Cuts one response body into events, however the network cut the bytes.

    ``last_event_id`` is the cursor to resume from, ``retry`` the reconnection time in milliseconds
    that the server asked for. Work is linear in the bytes fed, whatever their pieces.
    """

    def __init__(self, *, limit: int = MAX_EVENT_BYTES) -> None:
        self.last_event_id = ""
        self.retry: int | None = None
        self._limit = limit
        self._line = bytearray()  # the unfinished line
        self._after_cr = False
        self._first_line = True
        self._id = ""
        self._event = ""
        self._data: list[str] = []
        self._data_size = 0

    def feed(self, chunk: bytes) -> Iterator[Event]:
        """Yield the events that ``chunk`` completes. It must be iterated to its end.

        A half-received event at the end of the stream is dropped by never feeding the rest.

        Raises:
            EventTooLargeError: one event is above the limit; the events before it were yielded.
        """
        if not chunk:
            return
        start = 1 if self._after_cr and chunk.startswith(b"\n") else 0
        self._after_cr = chunk.endswith(b"\r")
        for end in _LINE_END.finditer(chunk, start):
            self._take(chunk[start : end.start()])
            start = end.end()
            event = self._end_line()
            if event is not None:
                yield event
        self._take(chunk[start:])

    def _take(self, piece: bytes) -> None:
        self._line += piece
        if len(self._line) + self._data_size > self._limit:
            raise EventTooLargeError(f"an event is larger than {self._limit} bytes")

    def _end_line(self) -> Event | None:
        raw = bytes(self._line)
        self._line.clear()
        if self._first_line:
            raw = raw.removeprefix(_BOM)
            self._first_line = False
        if not raw:
            return self._dispatch()
        name, _, value = raw.decode("utf-8", "replace").partition(":")
        self._field(name, value.removeprefix(" "), len(raw))
        return None

    def _dispatch(self) -> Event | None:
        self.last_event_id = self._id
        event = Event(self._id, self._event or "message", "\n".join(self._data))
        empty = not self._data
        self._event, self._data, self._data_size = "", [], 0
        return None if empty else event

    def _field(self, name: str, value: str, size: int) -> None:
        match name:
            case "data":
                self._data.append(value)
                self._data_size += size
            case "event":
                self._event = value
            case "id" if "\0" not in value:
                self._id = value
            case "retry" if _RETRY.fullmatch(value):
                self.retry = int(value)
            case _:
                pass  # comments (an empty name) and fields that the standard does not know


def parse(wire: bytes) -> list[Event]:
    """All events of a whole body."""
    return list(EventParser().feed(wire))
