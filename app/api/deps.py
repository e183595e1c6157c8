"""What the endpoints share: the parts of the running gateway, how a run is followed."""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import partial
from typing import Annotated, get_args

from fastapi import Depends, Request, Response

from app.access.model import ANONYMOUS, Caller
from app.api.callers import Access
from app.api.late import LateBody
from app.api.stream import Body, NativeStream, StreamBody, WatchedBody
from app.conversations.journal import Journal
from app.conversations.late import LateStore
from app.errors import BadCursor, Draining, InvalidRequest, NotFound, StoreAway
from app.events.log import EventLog, LogGone
from app.events.model import Include, RunRecord, Snapshot
from app.llm.catalogue import Catalogue, ModelEntry
from app.llm.mcp import McpServers
from app.llm.model import ChatModel
from app.llm.toolbox import Toolbox
from app.runs.supervisor import Supervisor
from app.settings import Settings, comma_separated
from app.wire.cursor import Cursor, parse_cursor


@dataclass(frozen=True, slots=True)
class Gateway:
    """``store_name``: where runs' logs are. ``store_trouble``: why that cannot be reached just now,
    in a word or two."""

    settings: Settings
    access: Access
    log: EventLog
    model: ChatModel
    supervisor: Supervisor
    catalogue: Catalogue
    store: LateStore
    journal: Journal
    toolbox: Toolbox
    tool_servers: McpServers
    store_name: str = "in memory"
    store_trouble: Callable[[], str | None] = lambda: None

    def tools_of(self, entry: ModelEntry) -> tuple[str, ...]:
        """Names of those that the model may use and that are there."""
        if entry.runnable is not None:
            return ()  # it brings its own
        return tuple(filter(entry.allows, self.toolbox.names))

    def models_of(self, caller: Caller) -> list[ModelEntry]:
        """Those that it may use, in the catalogue's order. Without a models file a caller may be
        allowed others, too."""
        if caller.models is None:
            return list(self.catalogue)
        names = list(filter(caller.may_use, self.catalogue.names))
        names += sorted(caller.models - set(names))
        return [entry for name in names if (entry := self.catalogue.find(name))]

    def default_of(self, caller: Caller) -> ModelEntry | None:
        """The gateway's, else the first that it may use; None if it may use none."""
        if caller.may_use(self.catalogue.default.name):
            return self.catalogue.default
        return next(iter(self.models_of(caller)), None)


async def gateway(request: Request) -> Gateway:
    """Async without awaiting anything: FastAPI runs what is not async in a thread."""
    parts: Gateway = request.state.gateway
    return parts


Parts = Annotated[Gateway, Depends(gateway)]


def last_event_id(request: Request) -> Cursor | None:
    """None without the header; an empty one counts as absent (WHATWG HTML 9.2.5 sends none).

    Raises ``BadCursor``.
    """
    value = request.headers.get("last-event-id", "").strip()
    return parse_cursor(value) if value else None


def included(value: str) -> frozenset[Include]:
    """Raises ``InvalidRequest``."""
    known: dict[str, Include] = {name: name for name in get_args(Include)}
    try:
        return frozenset(known[name] for name in comma_separated(value))
    except KeyError:
        raise InvalidRequest(f"include takes {', '.join(known)}") from None


async def follow(
    request: Request,
    parts: Gateway,
    caller: Caller,
    cursor: Cursor,
    include: Collection[Include] | None = None,
) -> Response:
    """Replay what follows the cursor, then follow. Raises ``NotFound``, ``BadCursor``,
    ``Overloaded``.

    204 stops an ``EventSource`` for good (WHATWG HTML 9.2.3); a ``POST`` gets an empty stream. A
    store that cannot be reached is no error yet: the reader has a stream, which waits for it.
    """
    find = partial(parts.supervisor.find, cursor.run_id, caller.id, cursor.seq)
    behind = partial(_behind, parts, cursor, include)
    try:
        snapshot = await find()
    except StoreAway:
        parts.supervisor.expect_reader()
        heartbeat_s = parts.settings.heartbeat_seconds

        async def find_late() -> Snapshot:
            if parts.supervisor.has_let_go:
                raise Draining
            return await find()

        return _stream(
            request, parts, caller, LateBody(cursor.run_id, find_late, behind, heartbeat_s)
        )
    if request.method == "GET" and _is_at_end(snapshot, cursor):
        return Response(status_code=204, headers={"cache-control": "no-store"})
    body = behind(snapshot)
    if snapshot.done is None:
        await parts.supervisor.announce(cursor.run_id)
    return _stream(request, parts, caller, body)


def _behind(
    parts: Gateway, cursor: Cursor, include: Collection[Include] | None, snapshot: Snapshot
) -> Body:
    """What follows the cursor. Raises ``NotFound``, ``BadCursor``, ``Overloaded``."""
    ended = _is_at_end(snapshot, cursor)
    if cursor.seq > snapshot.last_seq and not ended and not snapshot.lags:
        raise BadCursor
    parts.supervisor.expect_reader()
    shown = snapshot.record.include if include is None else include
    return _body(parts, cursor, shown, ended=ended)


def _is_at_end(snapshot: Snapshot, cursor: Cursor) -> bool:
    return snapshot.done is not None and cursor.seq >= snapshot.last_seq


def stream(request: Request, parts: Gateway, caller: Caller, record: RunRecord) -> NativeStream:
    """The events of a run from its first on. Raises ``NotFound``."""
    body = _body(parts, Cursor(record.run_id, 0), record.include, ended=False)
    return _stream(request, parts, caller, body)


def _stream(request: Request, parts: Gateway, caller: Caller, body: StreamBody) -> NativeStream:
    if caller.id != ANONYMOUS:
        watching = partial(parts.access.watch.watching, caller)
        body = WatchedBody(body, watching, request.state.request_id)
    return NativeStream(body)


def _body(parts: Gateway, cursor: Cursor, include: Collection[Include], *, ended: bool) -> Body:
    """Raises ``NotFound``."""
    try:
        reader = None if ended else parts.log.read(cursor.run_id, cursor.seq)
    except LogGone:
        raise NotFound from None
    heartbeat_s = parts.settings.heartbeat_seconds
    return Body(parts.supervisor, reader, cursor.run_id, include, heartbeat_s)
