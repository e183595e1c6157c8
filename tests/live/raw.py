"""Bytes that no client library would send, and requests that two programs could read in two ways.

In them HOST stands for the host, HIDDEN for a request that hides in what may be a body, LENGTH and
SIZE for its bytes in decimal and in hexadecimal digits.
"""

import re
import socket
from contextlib import suppress

import httpx

from tests.live.reading import WAIT_S

LAST = b"GET /health HTTP/1.1\r\nHost: HOST\r\nConnection: close\r\n\r\n"


def statuses(answers: bytes) -> list[int]:
    """Of all answers on a connection; no body of ours has such a line."""
    return [int(status) for status in re.findall(rb"HTTP/1\.1 (\d+) ", answers)]


def exchange(url: str, *parts: bytes, hidden: bytes = b"") -> bytes:
    """Send each part once the one before was answered; all that came until the connection ended.

    Blocks, because an asyncio stream forgets what it has got when the other side resets.
    """
    at = httpx.URL(url)
    hidden = hidden.replace(b"HOST", at.netloc)
    received = b""
    with (
        socket.create_connection((at.host, at.port or 80), WAIT_S) as connection,
        suppress(ConnectionResetError),
    ):
        for number, part in enumerate(parts):
            filled = part.replace(b"HIDDEN", hidden).replace(b"HOST", at.netloc)
            filled = filled.replace(b"LENGTH", b"%d" % len(hidden))
            with suppress(ConnectionError):  # it refused what it had not read
                connection.sendall(filled.replace(b"SIZE", b"%x" % len(hidden)))
            while data := connection.recv(65_536):
                received += data
                if number < len(parts) - 1 and b"\r\n\r\n" in received:
                    break
    return received


def post(*lines: bytes, path: bytes = b"/models", version: bytes = b"1.1") -> bytes:
    """A head."""
    head = [b"POST %b HTTP/%b" % (path, version), b"Host: HOST", *lines]
    return b"\r\n".join([*head, b"", b""])


KNOWN = b"Content-Length: LENGTH"
CHUNKED = b"Transfer-Encoding: chunked"
END = b"0\r\n\r\n"

# Refused with 400, and the connection ends.
REFUSED = {
    "a length, then chunks": post(KNOWN, CHUNKED) + END + b"HIDDEN",
    "chunks, then a length": post(CHUNKED, KNOWN) + END + b"HIDDEN",
    "two lengths": post(b"Content-Length: 0", KNOWN) + b"HIDDEN",
    "two lengths in a list": post(b"Content-Length: 0, LENGTH") + b"HIDDEN",
    "the same length twice": post(KNOWN, KNOWN) + b"HIDDEN",
    "a length with a sign": post(b"Content-Length: +LENGTH") + b"HIDDEN",
    "a length in hexadecimal": post(b"Content-Length: 0xSIZE") + b"HIDDEN",
    "a length with a line": post(b"Content-Length: 0_0") + b"HIDDEN",
    "a length beyond all numbers": post(b"Content-Length: 18446744073709551616") + b"HIDDEN",
    "chunked twice": post(b"Transfer-Encoding: chunked, chunked") + END + b"HIDDEN",
    "chunked in two lines": post(CHUNKED, CHUNKED) + END + b"HIDDEN",
    "chunked and then not": post(CHUNKED + b", identity") + END + b"HIDDEN",
    "compressed and chunked": post(b"Transfer-Encoding: gzip, chunked") + END + b"HIDDEN",
    "another coding": post(b"Transfer-Encoding: xchunked") + END + b"HIDDEN",
    "no coding": post(b"Transfer-Encoding:") + END + b"HIDDEN",
    "a vertical tab before the coding": post(b"Transfer-Encoding: \x0bchunked", KNOWN) + b"HIDDEN",
    "a space behind a name": post(b"Transfer-Encoding : chunked", KNOWN) + b"HIDDEN",
    "a folded line": post(b"Transfer-Encoding:\r\n chunked", KNOWN) + b"HIDDEN",
    "a line that ends without CR": post(b"X: y\nTransfer-Encoding: chunked", KNOWN) + b"HIDDEN",
    "a line that ends without LF": post(b"X: y\rTransfer-Encoding: chunked", KNOWN) + b"HIDDEN",
    "a head that ends without CR": post(KNOWN)[:-2] + b"\nHIDDEN",
    "a NUL in a value": post(b"X: \0", KNOWN) + b"HIDDEN",
    "a NUL in a name": post(b"X\0: y", KNOWN) + b"HIDDEN",
    "chunks in HTTP/1.0": post(CHUNKED, version=b"1.0") + END + b"HIDDEN",
    "HTTP/0.9": b"GET /models\r\n\r\nHIDDEN",
    "HTTP/2 in a line": post(KNOWN, version=b"2.0") + b"HIDDEN",
    "a size in a line without CR": post(CHUNKED) + b"0\n\r\nHIDDEN",
    "an extension in a line without CR": post(CHUNKED) + b"0;x\n\r\nHIDDEN",
    "a size with a sign": post(CHUNKED) + b"+0\r\n\r\nHIDDEN",
    "a size beyond all numbers": post(CHUNKED) + b"10000000000000000\r\n\r\nHIDDEN",
    "a chunk longer than its size": post(CHUNKED) + b"1\r\nab\r\n" + END + b"HIDDEN",
    "a length behind the chunks": post(CHUNKED) + b"0\r\n" + KNOWN + b"\r\n\r\nHIDDEN",
    "two hosts": post(b"Host: HOST", KNOWN) + b"HIDDEN",
    "no host": post(KNOWN).replace(b"Host: HOST\r\n", b"") + b"HIDDEN",
    "another host in the address": post(KNOWN, path=b"http://evil.example/models") + b"HIDDEN",
    "an address without a slash": post(KNOWN, path=b"models") + b"HIDDEN",
}

_JSON = b"Content-Type: application/json"
_WISHES = {
    f"a wish for {protocol}": post(
        b"Connection: Upgrade", b"Upgrade: " + protocol.encode(), _JSON, *more, KNOWN, path=b"/chat"
    )
    for protocol, more in {"h2c": [b"HTTP2-Settings: AAMAAABk"], "websocket": []}.items()
}

# Here it is a body and nothing else; what comes behind it is the next request.
BODIES = {
    "a body of GET": [b"GET" + post(KNOWN)[4:] + b"HIDDEN"],
    "a body of GET that comes late": [b"GET" + post(KNOWN)[4:], b"HIDDEN"],
    "a body that nobody waits for": [post(KNOWN, path=b"/chat"), b"HIDDEN"],
    "a name that looks like the coding's": [post(b"Transfer_Encoding: chunked", KNOWN) + b"HIDDEN"],
    "a chunk": [post(CHUNKED) + b"SIZE\r\nHIDDEN\r\n" + END],
    "an extension": [post(CHUNKED) + b"SIZE;x=y\r\nHIDDEN\r\n" + END],
    "a body that is asked for": [
        post(b"Expect: 100-continue", _JSON, KNOWN, path=b"/chat"),
        b"HIDDEN",
    ],
    **{name: [head + b"HIDDEN"] for name, head in _WISHES.items()},
    **{
        f"{name}, the body asked for": [
            head.replace(b"\r\nHost", b"\r\nExpect: 100-continue\r\nHost"),
            b"HIDDEN",
        ]
        for name, head in _WISHES.items()
    },
}
