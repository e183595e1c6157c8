"""A run's events as a native stream: replay, then follow, with heartbeats.

Deliberate oddities, against measured traps of sse-starlette 3.7 (``design.md`` section 4):

1. The generator yields bytes that hold whole frames: what is ready, joined, one write.
2. ``ping=0`` and a heartbeat of our own, because the library's is on an absolute timer, ends in a
   blank line and costs a task for each stream.
3. A reader is counted around the whole response, not in the generator: the generator of a client
   that left before its first iteration never starts, and its ``finally`` never runs.
4. No ``send_timeout``: it is a timer for each write and cannot close a full socket. ``app.server``
   cuts frozen readers at the transport.
5. No ``Connection`` header: HTTP/2 forbids it (RFC 9113 section 8.2.2).
"""

import asyncio
from collections.abc import AsyncGenerator, Collection

from anyio import Event as AnyioEvent
from sse_starlette import EventSourceResponse
from starlette.types import Receive, Scope, Send

from app.events.log import LogGone, Reader
from app.events.model import Done, Include
from app.runs.supervisor import Supervisor
from app.wire.native import HEARTBEAT

HEADERS = {
    "content-type": "text/event-stream; charset=utf-8",
    "cache-control": "no-store, no-transform",
}
FAREWELL_S = 5.0  # under a bare uvicorn: how long a stream may take to say its ending


class NativeStream(EventSourceResponse):
    """Counts as a reader of the run for as long as it lives. ``reader`` None: nothing is left."""

    def __init__(
        self,
        supervisor: Supervisor,
        reader: Reader | None,
        run_id: str,
        include: Collection[Include],
        *,
        heartbeat_s: float,
        shutdown: AnyioEvent,
    ) -> None:
        super().__init__(
            frames(reader, include, heartbeat_s) if reader else _nothing(),
            headers=HEADERS
            | {"content-location": f"/runs/{run_id}", "location": f"/runs/{run_id}/events"},
            ping=0,
            shutdown_event=shutdown,
            shutdown_grace_period=FAREWELL_S,
        )
        del self.headers["connection"]
        self._supervisor = supervisor
        self._run_id = run_id
        self._reader = reader

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            with self._supervisor.reading(self._run_id):
                await super().__call__(scope, receive, send)
        finally:
            if self._reader is not None:
                self._reader.close()


async def frames(
    reader: Reader, include: Collection[Include], heartbeat_s: float
) -> AsyncGenerator[bytes, None]:
    """Writes: each of one or more whole frames, or a heartbeat. Ends behind ``done``.

    Ends without it where the log was dropped: the reader resumes and learns what is left.
    """
    loop = asyncio.get_running_loop()
    due = loop.time() + heartbeat_s
    while True:
        try:
            entries = await reader.read(max(0.0, due - loop.time()))
        except LogGone:
            return
        shown = [
            entry.frame
            for entry in entries
            if entry.event.shown_with is None or entry.event.shown_with in include
        ]
        if shown:
            yield b"".join(shown)
        elif loop.time() >= due:
            yield HEARTBEAT
        else:
            continue  # all hidden: the reader's silence goes on
        if entries and type(entries[-1].event) is Done:
            return
        due = loop.time() + heartbeat_s


async def _nothing() -> AsyncGenerator[bytes, None]:
    return
    yield
