"""One client's connection: uvicorn's, made strict about what a request is and how long it may take.

The parser refuses almost everything that two programs could read in two ways (RFC 9112 section
11.2). Done here is the rest of it, and what uvicorn has no word for. Deliberate oddities:

1. The clock of a request is looked at from time to time by the server: no timer for each. It stands
   still while it is we who do not read, because an earlier request is being answered.
2. A request that wants another protocol is parsed a second time without that wish. The parser takes
   what follows the head for the other protocol, so a body would be lost, or be the next request;
   Java's client asks for HTTP/2 in this way with each first ``POST``.
3. Trailers are dropped: the parser would add them to the head, behind the back of whoever checked
   that (RFC 9110 section 6.5.1).
4. What is no request gets an answer only where that cannot be taken for another request's: behind
   an answer that is still being written the connection is closed.
"""

import fcntl
import logging
import re
import socket
import struct
import termios
import time
from asyncio import BaseTransport
from contextlib import suppress
from enum import Enum
from http import HTTPStatus
from math import inf
from typing import Any

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from app.refusals import refusal

logger = logging.getLogger(__name__)

# A reader that takes no bytes for this long is cut: contract section 5.
FROZEN_S = 30.0
# A request must have arrived this long after its first byte, the first one after its connection.
RECEIVE_S = 15.0
# But a body that does arrive gets a second more for each of these: an old phone's uplink. Apache's
# mod_reqtimeout has the same rule with 500, with which 4 MiB may take two hours.
BODY_BYTES_PER_S = 16 * 1024
MAX_URL_BYTES = 65_535  # httptools can parse no longer one
MAX_HEADER_BYTES = 64 * 1024  # h11's precedent, which uvicorn's other parser keeps
MAX_HEADERS = 100  # as Apache and Tomcat; browsers send 20, proxies add some
# The parser shows a header once it is whole; until then only the bytes that came can be counted.
MAX_HEAD_BYTES = MAX_URL_BYTES + MAX_HEADER_BYTES + 2048
# Of a body in chunks, what is not content: sizes, extensions, trailers. A chunk of one byte has 5.
MAX_FRAMING_BYTES = 256 * 1024
MAX_FRAMING_PER_BYTE = 8


class Part(Enum):
    """What of a request is on its way."""

    NOTHING = 0
    HEAD = 1
    BODY = 2
    BROKEN = 3  # nothing more is read: the connection ends behind what is being answered


class Connection(HttpToolsProtocol):
    """``config.limit_concurrency``: connections at once; one more is answered 503."""

    # Slots beside the base's dictionary, which would grow by a kilobyte for so many more names.
    __slots__ = (
        "_acked",
        "_content_bytes",
        "_due",
        "_header_bytes",
        "_headers",
        "_part",
        "_received",
        "_refusal",
        "_stuck_since",
    )

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.limit_concurrency = None  # uvicorn would count running requests too, and say less
        # Bytes that the peer's kernel had taken at the last look; -1: nothing waits.
        self._acked = -1
        self._stuck_since = 0.0
        self._part = Part.NOTHING
        self._due = inf  # when what is on its way must be here
        self._received = self._content_bytes = self._header_bytes = self._headers = 0
        self._refusal = HTTPStatus.BAD_REQUEST

    def connection_made(self, transport: BaseTransport) -> None:
        limit = self.config.limit_concurrency
        if limit is not None and len(self.connections) >= limit:
            self.transport = transport  # type: ignore[assignment]  # a stream's it is
            self.transport.write(refusal(HTTPStatus.SERVICE_UNAVAILABLE))
            self.transport.close()
            return
        super().connection_made(transport)  # type: ignore[arg-type]  # uvicorn says the same
        self._due = time.monotonic() + RECEIVE_S

    def data_received(self, data: bytes) -> None:
        if self._part is Part.BROKEN:
            return
        self._unset_keepalive_if_required()
        if self._due == inf:
            self._due = time.monotonic() + RECEIVE_S
        self._received += len(data)
        while data:
            try:
                self.parser.feed_data(data)
                data = b""
            except httptools.HttpParserUpgrade as wish:
                data = self._plain_head() + data[wish.args[0] :]
            except httptools.HttpParserError as error:
                logger.debug("no request: %s", error)
                self._refuse(self._refusal)
                return
        if self._part is Part.HEAD and self._received > MAX_HEAD_BYTES:
            self._refuse(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)
        elif self._part is Part.BODY and self._received > (
            MAX_FRAMING_BYTES + MAX_FRAMING_PER_BYTE * self._content_bytes
        ):
            self._refuse(HTTPStatus.BAD_REQUEST)

    def look(self, now: float) -> None:
        """Cut a sender that is too slow, and a reader that is frozen."""
        if now >= self._due:
            self._overdue(now)
        self._look_at_reader(now)

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._part = Part.HEAD
        if self._due == inf:  # it came together with the end of another
            self._due = time.monotonic() + RECEIVE_S
        self._received = self._content_bytes = self._header_bytes = self._headers = 0

    def on_url(self, url: bytes) -> None:
        super().on_url(url)
        self._bound(len(self.url), MAX_URL_BYTES, HTTPStatus.REQUEST_URI_TOO_LONG)

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers += 1
        self._header_bytes += len(name) + len(value)
        too_large = HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE
        self._bound(self._headers, MAX_HEADERS, too_large)
        self._bound(self._header_bytes, MAX_HEADER_BYTES, too_large)
        if self._part is Part.HEAD:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        if self.parser.get_method() == b"CONNECT":
            self._fail(HTTPStatus.METHOD_NOT_ALLOWED)
        if not _is_plain(self.parser.get_http_version(), self.url, self.headers):
            self._fail(HTTPStatus.BAD_REQUEST)
        if self.parser.should_upgrade():
            return  # the parser says so once more, to data_received
        super().on_headers_complete()
        self._part = Part.BODY

    def on_body(self, body: bytes) -> None:
        self._content_bytes += len(body)
        if not self.cycle.response_complete:
            self._due += len(body) / BODY_BYTES_PER_S
        super().on_body(body)

    def on_message_complete(self) -> None:
        if self.parser.should_upgrade():
            return
        super().on_message_complete()
        self._part, self._due = Part.NOTHING, inf

    def on_response_complete(self) -> None:
        was_last = not self.pipeline
        super().on_response_complete()
        if self._part is Part.BROKEN and was_last:
            self._hang_up()
        elif self._due != inf:  # a body that was answered before it was here, or what comes next
            self._due = time.monotonic() + RECEIVE_S

    def _plain_head(self) -> bytes:
        """The request's, without its wish for another protocol."""
        version = self.parser.get_http_version().encode()
        lines = [b"%b %b HTTP/%b" % (self.parser.get_method(), self.url, version)]
        lines += [b"%b: %b" % field for field in self.headers if field[0] != b"upgrade"]
        return b"\r\n".join([*lines, b"", b""])

    def _overdue(self, now: float) -> None:
        if (
            self.flow.read_paused
            or self.pipeline
            or (self._part is not Part.BODY and self._is_answering)
        ):
            self._due = now + RECEIVE_S
        elif self._part is Part.NOTHING:
            self._hang_up()
        else:
            self._refuse(HTTPStatus.REQUEST_TIMEOUT)

    def _look_at_reader(self, now: float) -> None:
        """Cut a peer that has taken nothing for ``FROZEN_S`` of what waits for it (Linux only).

        Not ``TCP_USER_TIMEOUT``, which cuts slow readers with small windows too, and not the size
        of our own buffer, which shrinks only once a third of the kernel's is free. Not
        ``transport.close()`` either, which waits for the very bytes that nobody takes.
        """
        sock = self.transport.get_extra_info("socket")
        with suppress(OSError):  # closed since
            if not self.transport.get_write_buffer_size() and not _unacked(sock):
                self._acked = -1
                return
            acked = _acked(sock)
            if acked != self._acked:
                self._acked, self._stuck_since = acked, now
            elif now - self._stuck_since >= FROZEN_S:
                logger.info("cut a reader that took nothing for %g s", FROZEN_S)
                self.transport.abort()

    @property
    def _is_answering(self) -> bool:
        cycle: RequestResponseCycle | None = self.cycle  # uvicorn's types leave out the None
        return cycle is not None and not cycle.response_complete

    def _bound(self, size: int, limit: int, status: HTTPStatus) -> None:
        if size > limit:
            self._fail(status)

    def _fail(self, status: HTTPStatus) -> None:
        """For the parser's callbacks: it turns what is raised into its own error."""
        self._refusal = status
        raise ValueError(status.phrase)

    def _refuse(self, status: HTTPStatus) -> None:
        """End the connection with that answer, if there is a place for it."""
        if self._part is Part.BODY and self.pipeline:
            self.pipeline.popleft()  # the newest, whose turn has not come
            self._part, self._due = Part.BROKEN, inf
        elif self._part is not Part.BODY and self._is_answering:
            self._part, self._due = Part.BROKEN, inf
        elif self._part is Part.BODY and self.cycle.response_started:
            self._hang_up()
        else:
            self.transport.write(refusal(status))
            self._hang_up()

    def _hang_up(self) -> None:
        self._part, self._due = Part.BROKEN, inf
        if self._is_answering:  # at once: not only when the last bytes are gone
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        self.transport.close()


def _is_plain(version: str, url: bytes, headers: list[tuple[bytes, bytes]]) -> bool:
    """Whether no proxy can take it for another request than we (RFC 9112 sections 3.2 and 6.1)."""
    hosts = [value for name, value in headers if name == b"host"]
    codings = [value.lower() for name, value in headers if name == b"transfer-encoding"]
    if version == "1.1":
        well_framed = codings in ([], [b"chunked"]) and len(hosts) == 1
    else:
        well_framed = version == "1.0" and not codings and len(hosts) <= 1
    if url.startswith(b"/") or url == b"*":
        return well_framed
    authority = re.fullmatch(rb"https?://([^/?#]*)/.*", url, re.IGNORECASE | re.DOTALL)
    return well_framed and authority is not None and hosts == [authority[1]]


def _unacked(sock: socket.socket) -> int:
    """Bytes in the kernel that the peer has not taken: ``SIOCOUTQ`` of tcp(7)."""
    (count,) = struct.unpack("i", fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, bytes(4)))
    return int(count)


def _acked(sock: socket.socket) -> int:
    """Bytes that the peer has acknowledged: ``tcpi_bytes_acked`` of Linux's ``struct tcp_info``."""
    info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 128)
    (count,) = struct.unpack_from("Q", info, 120)
    return int(count)
