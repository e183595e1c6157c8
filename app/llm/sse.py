"""Cut an upstream's bytes into the data of its events: many events for one call, no text yet.

What chat completions need of WHATWG HTML 9.2.6: any of the three line ends, a BOM, comments and
other fields passed over, lines of data joined, a block without data no event. ``app.wire.parse`` is
the whole standard, for clients; here a token costs a slice.
"""

_BOM = b"\xef\xbb\xbf"


class DataSplitter:
    """``feed`` takes what the socket gave and answers the data of each event that it completes."""

    __slots__ = ("_after_cr", "_first", "_rest")

    def __init__(self) -> None:
        self._rest = bytearray()  # the unfinished event
        self._first = True
        self._after_cr = False

    def feed(self, chunk: bytes) -> list[bytes]:
        if self._first:
            chunk = bytes(self._rest) + chunk
            self._rest.clear()
            if len(chunk) < len(_BOM) and _BOM.startswith(chunk):
                self._rest += chunk
                return []
            self._first = False
            chunk = chunk.removeprefix(_BOM)
        if self._after_cr or b"\r" in chunk:
            chunk = self._with_line_feeds(chunk)
        if not self._rest and chunk.startswith(b"data: ") and chunk.endswith(b"\n\n"):
            events = chunk[6:-2].split(b"\n\ndata: ")
            if chunk.count(b"\n") == 2 * len(events):  # whole events of one line each: most reads
                return events
        if self._rest:
            joint = self._rest[-1:] + chunk  # so that a long event is searched once
            self._rest += chunk
            if b"\n\n" not in joint:
                return []
            chunk = bytes(self._rest)
        *blocks, rest = chunk.split(b"\n\n")
        self._rest = bytearray(rest)
        return [data for block in blocks if (data := _data(block)) is not None]

    def _with_line_feeds(self, chunk: bytes) -> bytes:
        if self._after_cr:
            chunk = chunk.removeprefix(b"\n")  # the other half of a CRLF
        self._after_cr = chunk.endswith(b"\r")
        return chunk.replace(b"\r\n", b"\n").replace(b"\r", b"\n")


def _data(block: bytes) -> bytes | None:
    if block.startswith(b"data: ") and b"\n" not in block:  # nearly every one
        return block[6:]
    lines = [
        line[6 if line[5:6] == b" " else 5 :]
        for line in block.split(b"\n")
        if line.startswith(b"data:") or line == b"data"
    ]
    return b"\n".join(lines) if lines else None
