"""One connection of the load: sends requests, reads their events, counts and keeps the tokens."""

import asyncio
import re
import time
from array import array
from collections import Counter
from dataclasses import dataclass, field
from typing import cast

import httptools

_ENDS = (b"\n\n", b"\r\n\r\n")  # of a frame; CRLF is sse-starlette's own


class Failed(Exception):
    """A stream that does not count. The text says why, in the same words for the same reason."""


class Frames:
    """Cuts whole frames out of a body, wherever its bytes were cut, and finds their tokens."""

    def __init__(self, token: re.Pattern[bytes]) -> None:
        """``token`` has one group, the text of a token; it sees only whole frames."""
        self._token = token
        self._rest = b""

    def feed(self, data: bytes) -> list[bytes]:
        data = self._rest + data
        end = max(place + len(mark) if (place := data.rfind(mark)) >= 0 else 0 for mark in _ENDS)
        self._rest = data[end:]
        return self._token.findall(data, 0, end)


def _seconds() -> "array[float]":
    return array("d")


@dataclass
class Tally:
    """What all connections of a load have seen so far."""

    ok: int = 0
    errors: Counter[str] = field(default_factory=Counter)  # why streams failed
    tokens: int = 0
    reads: int = 0  # that held tokens
    first_s: "array[float]" = field(default_factory=_seconds)  # from request to first token
    gaps_s: "array[float]" = field(default_factory=_seconds)  # between reads that held tokens
    left: dict[str, float] = field(default_factory=dict)  # tag, `Client.left_at`


class Client(asyncio.Protocol):
    """Keeps its connection from answer to answer, as browsers and SDKs do."""

    _transport: asyncio.Transport  # from `connection_made` on

    def __init__(self, token: re.Pattern[bytes], tally: Tally) -> None:
        self._token = token
        self._tally = tally
        self._over: asyncio.Future[None] | None = None  # of the running answer
        self.closed = True  # until it is connected
        self.left_at = 0.0  # `time.monotonic()` of a leave that was planned

    async def ask(self, request: bytes, leave_after: int = 0) -> bytes:
        """The text of a complete answer, or its beginning when it is to be left after some tokens.

        Raises ``Failed`` for everything else.
        """
        self._parser = httptools.HttpResponseParser(self)
        self._frames = Frames(self._token)
        self._leave_after = leave_after
        self._body: list[bytes] = []
        self._tokens: list[bytes] = []
        self._refusal = b""
        self._status = 0
        self._complete = False
        self._over = asyncio.get_running_loop().create_future()
        self._last = time.monotonic()
        self._transport.write(request)
        await self._over
        return b"".join(self._tokens)

    def close(self) -> None:
        self.closed = True
        self._transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is no subclass of it
        self.closed = False

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed = True
        self._end(Failed("closed before the end"))

    def data_received(self, data: bytes) -> None:
        now = time.monotonic()
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self._end(Failed(f"not HTTP: {error}"))
            return
        body = b"".join(self._body)
        self._body.clear()
        if self._status != 200:
            self._refusal += body
        elif tokens := self._frames.feed(body):
            self._count(tokens, now)
        if self._complete:
            self._finish()

    def on_headers_complete(self) -> None:
        self._status = self._parser.get_status_code()

    def on_body(self, body: bytes) -> None:
        self._body.append(body)

    def on_message_complete(self) -> None:
        self._complete = True
        self._keep_alive = self._parser.should_keep_alive()  # the parser knows only now

    def _count(self, tokens: list[bytes], now: float) -> None:
        tally = self._tally
        tally.tokens += len(tokens)
        tally.reads += 1
        (tally.gaps_s if self._tokens else tally.first_s).append(now - self._last)
        self._last = now
        self._tokens += tokens
        if self._leave_after and len(self._tokens) >= self._leave_after:
            self.left_at = time.monotonic()
            self.close()
            self._end(None)

    def _finish(self) -> None:
        if not self._keep_alive:
            self.close()
        if self._status == 200:
            self._end(None)
        else:
            reason = self._refusal[:160].decode(errors="replace")
            self._end(Failed(f"status {self._status}: {reason}"))

    def _end(self, failure: Failed | None) -> None:
        if self._over is None or self._over.done():
            return
        if failure is None:
            self._over.set_result(None)
        else:
            self._over.set_exception(failure)
