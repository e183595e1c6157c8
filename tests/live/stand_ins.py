"""What stands between ``python -m app chat`` and a gateway: a proxy that cuts, holds or redirects
connections, and a server with canned answers."""

import json
import re
import socket
import threading
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any, Self
from urllib.parse import urlsplit

from tests.live.servers import STOP_S

CUT_NOTHING = 1 << 40
# The gateway asks for a pause of 1 to 3 s before a resume; tests need not wait for it.
_RETRY = re.compile(rb"retry: [0-9]{4}\n")

RUN_ID = "r" * 22
STREAM = "200 OK\r\ncontent-type: text/event-stream; charset=utf-8"
START = ("start", {"run_id": RUN_ID, "model": "m", "heartbeat_ms": 10_000})
TOOLLESS = '{"items": [{"name": "m", "default": true, "tools": []}]}'
FINAL = ("final", {"text": "one two", "finish_reason": "stop"})
DONE = ("done", {"status": "completed"})


def token(text: str) -> tuple[str, object]:
    return ("token", {"text": text})


def frames(*events: tuple[str, object], first: int = 1) -> str:
    """The body of a native stream, ids and all."""
    return "".join(
        f"id: {RUN_ID}.{number}\nevent: {name}\ndata: {json.dumps(data)}\n\n"
        for number, (name, data) in enumerate(events, first)
    )


class Server:
    """Threads that answer connections on 127.0.0.1, one after the other or at once. Those that ask
    for the models are neither numbered nor counted."""

    def __init__(self) -> None:
        self.connections = 0
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._thread(self._accept)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
        with self._lock:
            for each in self._open:
                _shut(each)

    def close(self) -> None:
        """Refuse further connections."""
        _shut(self._listener)
        self._listener.close()

    def answer(self, client: socket.socket, number: int) -> None:
        raise NotImplementedError

    def tell_models(self, client: socket.socket) -> None:
        raise NotImplementedError

    def _thread(self, target: Callable[..., None], *arguments: Any) -> threading.Thread:
        thread = threading.Thread(target=target, args=arguments, daemon=True)
        thread.start()
        return thread

    def _keep(self, each: socket.socket) -> socket.socket:
        with self._lock:
            self._open.add(each)
        return each

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            self._thread(self._serve, self._keep(client))

    def _serve(self, client: socket.socket) -> None:
        with client:
            with suppress(OSError):
                if b"/models " in client.recv(4096, socket.MSG_PEEK):
                    self.tell_models(client)
                else:
                    with self._lock:
                        number, self.connections = self.connections, self.connections + 1
                    self.answer(client, number)
            with self._lock:
                self._open.discard(client)


class Proxy(Server):
    """``cuts``: for each connection in turn, after how many bytes from upstream it is cut; with
    ``hold`` it is not cut but goes silent. Later connections are left whole."""

    def __init__(self, target: str, cuts: Iterable[int] = (), *, hold: bool = False) -> None:
        self.target = target
        self.prefix = b""  # a path that is taken away
        self._cuts, self._hold = list(cuts), hold
        super().__init__()

    def tell_models(self, client: socket.socket) -> None:
        self._pass(client, CUT_NOTHING)

    def answer(self, client: socket.socket, number: int) -> None:
        self._pass(client, self._cuts[number] if number < len(self._cuts) else CUT_NOTHING)

    def _pass(self, client: socket.socket, left: int) -> None:
        place = urlsplit(self.target)
        with self._keep(socket.create_connection((place.hostname, place.port))) as upstream:
            there = self._thread(self._forward, client, upstream)
            while data := upstream.recv(65536):
                data = _RETRY.sub(b"retry: 0001\n", data)
                client.sendall(data[:left])
                left -= len(data)
                if left <= 0:
                    break
            if left <= 0 and self._hold:
                there.join(STOP_S)  # until the client gives up
            _shut(client)
            _shut(upstream)

    def _forward(self, client: socket.socket, upstream: socket.socket) -> None:
        with suppress(OSError):
            while data := client.recv(65536):
                upstream.sendall(data.replace(b" " + self.prefix + b"/", b" /", 1))
            upstream.shutdown(socket.SHUT_WR)


class Canned(Server):
    """Answers each connection with the next of ``answers``, and keeps what it was asked.
    ``models``: what it says of them."""

    def __init__(self, *answers: tuple[str, str], models: str = TOOLLESS) -> None:
        self.requests: list[str] = []
        self._answers = answers
        self._models = models
        super().__init__()

    def tell_models(self, client: socket.socket) -> None:
        client.recv(65536)
        self._send(client, "200 OK", self._models)

    def answer(self, client: socket.socket, number: int) -> None:
        request = b""
        while b"\r\n\r\n" not in request:
            data = client.recv(65536)
            if not data:
                return
            request += data
        self.requests.append(request.decode())
        head, body = self._answers[min(number, len(self._answers) - 1)]
        self._send(client, head, body)

    def _send(self, client: socket.socket, head: str, body: str) -> None:
        client.sendall(f"HTTP/1.1 {head}\r\nconnection: close\r\n\r\n{body}".encode())
        client.shutdown(socket.SHUT_WR)
        while client.recv(65536):  # the rest of the question; a close now would be a reset
            pass


def _shut(each: socket.socket) -> None:
    with suppress(OSError):
        each.shutdown(socket.SHUT_RDWR)
