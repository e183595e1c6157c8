"""``python -m app chat`` as a process, and what stands between it and a gateway: a proxy that cuts,
holds or redirects connections, and a server with canned answers."""

import fcntl
import json
import os
import re
import signal
import socket
import struct
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any, Self
from urllib.parse import urlsplit

from tests.live.servers import ROOT, STOP_S, SimulatorProcess

CUT_NOTHING = 1 << 40
# The gateway asks for a pause of 1 to 3 s before a resume; tests need not wait for it.
_RETRY = re.compile(rb"retry: [0-9]{4}\n")


RUN_ID = "r" * 22
STREAM = "200 OK\r\ncontent-type: text/event-stream; charset=utf-8"
START = ("start", {"run_id": RUN_ID, "model": "m", "heartbeat_ms": 10_000})
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


def until(condition: Callable[[], object], what: str, seconds: float = 20.0) -> None:
    """Poll another process, bounded."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"it never came: {what}"
        time.sleep(0.02)


class Chat:
    """The client. ``stdout``: where to, None collects it in ``out``; stderr is in ``err``."""

    def __init__(self, text: str, url: str, *, stdout: int | None = None, **env: str):
        clean = {k: v for k, v in os.environ.items() if "proxy" not in k.lower()}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "app", "chat", text, "--url", url],
            env=clean | {"PYTHONPATH": str(ROOT)} | env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE if stdout is None else stdout,
            stderr=subprocess.PIPE,
        )
        self.out, self.err = bytearray(), bytearray()
        self._readers = [threading.Thread(target=self._read, args=("stderr",), daemon=True)]
        if stdout is None:
            self._readers.append(threading.Thread(target=self._read, args=("stdout",), daemon=True))
        for reader in self._readers:
            reader.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.wait()

    @property
    def words(self) -> str:
        return self.err.decode()

    def shows(self, text: str) -> None:
        until(lambda: text.encode() in self.out, f"{text!r} on stdout; stderr: {self.words}")

    def says(self, text: str) -> None:
        until(lambda: text in self.words, f"{text!r} on stderr")

    def interrupt(self) -> None:
        self.process.send_signal(signal.SIGINT)

    def wait(self, seconds: float = STOP_S) -> int:
        """The exit code; all output has been read."""
        code = self.process.wait(seconds)
        for reader in self._readers:
            reader.join(5)
        return code

    def _read(self, name: str) -> None:
        kept = self.out if name == "stdout" else self.err
        with getattr(self.process, name) as pipe:
            while data := pipe.read1(65536):
                kept.extend(data)


class Mark(str):
    """Stands in a question, so that the upstream's view of it can be told from the others."""

    simulator: SimulatorProcess

    def calls(self) -> int:
        started: int = self.simulator.stats(self)["started"]
        return started

    def is_asked(self) -> bool:
        return bool(self.simulator.stats(self)["open"])

    def is_stopped(self) -> bool:
        """The upstream call was aborted, and there was no other."""
        stats = self.simulator.stats(self)
        return (stats["started"], stats["aborted"], stats["open"]) == (1, 1, 0)


class Server:
    """Threads that answer connections on 127.0.0.1, one after the other or at once."""

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
            number, self.connections = self.connections, self.connections + 1
            self._thread(self._serve, self._keep(client), number)

    def _serve(self, client: socket.socket, number: int) -> None:
        with client:
            with suppress(OSError):
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

    def answer(self, client: socket.socket, number: int) -> None:
        left = self._cuts[number] if number < len(self._cuts) else CUT_NOTHING
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
    """Answers each connection with the next of ``answers``, and keeps what it was asked."""

    def __init__(self, *answers: tuple[str, str]) -> None:
        self.requests: list[str] = []
        self._answers = answers
        super().__init__()

    def answer(self, client: socket.socket, number: int) -> None:
        request = b""
        while b"\r\n\r\n" not in request:
            data = client.recv(65536)
            if not data:
                return
            request += data
        self.requests.append(request.decode())
        head, body = self._answers[min(number, len(self._answers) - 1)]
        client.sendall(f"HTTP/1.1 {head}\r\nconnection: close\r\n\r\n{body}".encode())
        client.shutdown(socket.SHUT_WR)
        while client.recv(65536):  # the rest of the question; a close now would be a reset
            pass


def _shut(each: socket.socket) -> None:
    with suppress(OSError):
        each.shutdown(socket.SHUT_RDWR)


def read_terminal(master: int) -> bytes:
    """What a pseudo-terminal showed, empty when nobody writes to it any more."""
    try:
        return os.read(master, 65536)
    except OSError:
        return b""


def small_pipe() -> tuple[int, int, Callable[[], bool]]:
    """Its two ends, and whether it is as good as full."""
    output, given = os.pipe()
    capacity = fcntl.fcntl(given, fcntl.F_SETPIPE_SZ, 4096)

    def is_full() -> bool:
        waiting: int = struct.unpack("i", fcntl.ioctl(output, termios.FIONREAD, bytes(4)))[0]
        return waiting > capacity - 20

    return output, given, is_full
