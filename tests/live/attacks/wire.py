"""Bytes to a server, and its answers: each byte that comes back belongs to one of them."""

import socket
import time
from contextlib import suppress
from dataclasses import dataclass, field

import httptools
import httpx

BOUND_S = 40.0  # a sender is cut after 15 s, on a machine that has much to do later


@dataclass
class Answer:
    """``ended``: its body was whole; never for an answer to HEAD."""

    status: int = 0
    headers: list[tuple[str, str]] = field(default_factory=list)
    body: bytes = b""
    ended: bool = False

    def header(self, name: str) -> str | None:
        found = [value for known, value in self.headers if known == name]
        assert len(found) <= 1, f"{name} stands twice: {self.headers}"
        return found[0] if found else None


class _Reader:
    """httptools' callbacks. Interim answers are left out."""

    def __init__(self) -> None:
        self.answers = [Answer()]
        self.parser = httptools.HttpResponseParser(self)

    def on_header(self, name: bytes, value: bytes) -> None:
        field = (name.decode("latin-1").lower(), value.decode("latin-1"))
        self.answers[-1].headers.append(field)

    def on_headers_complete(self) -> None:
        self.answers[-1].status = self.parser.get_status_code()

    def on_body(self, body: bytes) -> None:
        self.answers[-1].body += body

    def on_message_complete(self) -> None:
        self.answers[-1].ended = True
        if self.answers[-1].status < 200:
            self.answers.pop()
        self.answers.append(Answer())


def answers(received: bytes) -> list[Answer]:
    """Raises where anything is no part of an answer. One to HTTP/0.9 has no head: left out."""
    if not received.startswith(b"HTTP/"):
        return []
    reader = _Reader()
    reader.parser.feed_data(received)
    return [answer for answer in reader.answers if answer.status]


def exchange(url: str, sent: bytes, address: str) -> bytes:
    """All that came, until the other side ended the connection, for what was sent from there."""
    at = httpx.URL(url)
    received = b""
    with socket.create_connection(
        (at.host, at.port or 80), BOUND_S, source_address=(address, 0)
    ) as connection:
        deadline = time.monotonic() + BOUND_S
        with suppress(ConnectionError):  # it refused what it had not read
            connection.sendall(sent)
        with suppress(ConnectionResetError):
            while data := connection.recv(65_536):
                received += data
                assert time.monotonic() < deadline, f"never ended: {received!r}"
    return received
