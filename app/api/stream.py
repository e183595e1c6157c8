"""A run's events as a native stream: replay, then follow, with heartbeats.

Of sse-starlette's response this keeps the head and writes the body itself: the library's way takes
an ``anyio`` scope for each write and three tasks for each stream. Deliberate oddities:

1. What is ready is joined and written at once, whole frames only. No async generator: one that a
   client left before its first iteration never starts, and its ``finally`` never runs.
2. The heartbeat is a line of our own, due when nothing was written for so long: the library's is on
   an absolute timer and ends in a blank line (``design.md`` section 4).
3. The body is written once the request has left the routing, whose frames would take 14 KB as long
   as the stream lives, and in a task of its own, which wakes through nothing but itself.
4. No timer for each write. ``app.server`` cuts frozen readers at the transport.
5. No ``Connection`` header: HTTP/2 forbids it (RFC 9113 section 8.2.2).
6. A timeout without an end stops a body whose caller is no longer accepted: asyncio's own way to
   leave a block from outside, without a task more for each stream.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import AbstractContextManager
from functools import lru_cache
from typing import Protocol

from sse_starlette import EventSourceResponse
from starlette.types import Message, Receive, Scope, Send

from app.errors import Unauthorized
from app.events.log import LogGone, Reader
from app.events.model import Done, Error, Include, Usage
from app.runs.supervisor import Supervisor
from app.wire.native import HEARTBEAT, unnumbered

# The end of a stream whose caller is no longer accepted; what its run used is not told any more.
_REFUSED = Done("failed", Usage(0, 0, 0, True), finished_at=0.0, frees_key=False)
HEADERS = {
    "content-type": "text/event-stream; charset=utf-8",
    "cache-control": "no-store, no-transform",
}


class StreamBody(Protocol):
    """What stands behind the head of a run's stream."""

    run_id: str

    async def __call__(self, receive: Receive, send: Send) -> None:
        """Write it, until its end or until the reader leaves."""

    def abandon(self) -> None:
        """The reader came and left before a byte of it was written."""


class NativeStream(EventSourceResponse):
    """The head; the body is left for ``app.api.guard.RequestId`` to write."""

    def __init__(self, body: StreamBody) -> None:
        location = f"/runs/{body.run_id}"
        super().__init__(
            _nothing(),
            headers=HEADERS | {"content-location": location, "location": f"{location}/events"},
        )
        del self.headers["connection"]
        self._body = body

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002  # ASGI's
        scope["state"]["body"] = self._body
        await send(
            {
                "type": "http.response.start",
                "status": self.status_code,
                "headers": self.raw_headers,
            }
        )


class Body:
    """Counts as a reader of the run for as long as it is written. ``reader`` None: nothing is
    left."""

    __slots__ = ("_heartbeat_s", "_reader", "_shown_with", "_supervisor", "run_id")

    def __init__(
        self,
        supervisor: Supervisor,
        reader: Reader | None,
        run_id: str,
        include: Collection[Include],
        heartbeat_s: float,
    ) -> None:
        self._supervisor = supervisor
        self._reader = reader
        self.run_id = run_id
        self._shown_with = _shown_with(frozenset(include))
        self._heartbeat_s = heartbeat_s

    async def __call__(self, receive: Receive, send: Send) -> None:
        try:
            with self._supervisor.reading(self.run_id):
                async with asyncio.TaskGroup() as tasks:
                    writer = tasks.create_task(self._write(send))
                    while (await receive())["type"] != "http.disconnect":
                        pass  # servers wake it behind the response's end, too
                    writer.cancel()
        finally:
            if self._reader is not None:
                self._reader.close()

    def abandon(self) -> None:
        with self._supervisor.reading(self.run_id):
            pass

    async def _write(self, send: Send) -> None:
        if self._reader is None or not await self._follow(self._reader, send):
            await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _follow(self, reader: Reader, send: Send) -> bool:
        """Whether the body has its end: that goes out with ``done``, so that nothing comes between.
        Not where the log was dropped: the reader resumes and learns what is left."""
        time = asyncio.get_running_loop().time
        due = time() + self._heartbeat_s
        while True:
            try:
                entries = await reader.read(max(0.0, due - time()))
            except LogGone:
                return False
            shown = [entry.frame for entry in entries if entry.event.shown_with in self._shown_with]
            if shown:
                body = b"".join(shown)
            elif time() >= due:
                body = HEARTBEAT
            else:
                continue  # all hidden: the reader's silence goes on
            is_all = bool(entries) and type(entries[-1].event) is Done
            await send({"type": "http.response.body", "body": body, "more_body": not is_all})
            if is_all:
                return True
            due = time() + self._heartbeat_s


class WatchedBody:
    """A body that ends with ``error`` and ``done`` when its caller is no longer accepted. Its
    reader has left the run by then, however long it takes to read these.

    ``watching`` calls what it is given when that happens, as ``app.access.watch.Watch``.
    """

    def __init__(
        self,
        body: StreamBody,
        watching: Callable[[Callable[[], None]], AbstractContextManager[None]],
        request_id: str,
    ) -> None:
        self.run_id = body.run_id
        self._body = body
        self._watching = watching
        self._request_id = request_id

    async def __call__(self, receive: Receive, send: Send) -> None:
        ended = False

        async def noting(message: Message) -> None:
            nonlocal ended
            await send(message)  # all of it or, cancelled while it waits for room, nothing
            ended = not message["more_body"]

        now = asyncio.get_running_loop().time
        try:
            async with asyncio.timeout(None) as accepted:
                with self._watching(lambda: accepted.reschedule(now())):
                    await self._body(receive, noting)
        except TimeoutError:
            if not accepted.expired():
                raise
            if not ended:
                error = Error.because(Unauthorized(), self._request_id)
                last = unnumbered(error) + unnumbered(_REFUSED)
                await send({"type": "http.response.body", "body": last, "more_body": False})

    def abandon(self) -> None:
        self._body.abandon()


# The type checker proves the promise is kept.
_: type[StreamBody] = Body
__: type[StreamBody] = WatchedBody


@lru_cache  # one set for all streams that show the same
def _shown_with(include: frozenset[Include]) -> frozenset[Include | None]:
    return include | {None}


async def _nothing() -> AsyncIterator[bytes]:
    return
    yield
