"""What the endpoints share: the parts of the running gateway, who calls, how a run is followed."""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import partial
from typing import Annotated, get_args

from fastapi import Depends, Request, Response

from app.api.late import LateBody
from app.api.stream import Body, NativeStream
from app.conversations.journal import Journal
from app.conversations.late import LateStore
from app.errors import BadCursor, Draining, InvalidRequest, NotFound, StoreAway
from app.events.log import EventLog, LogGone
from app.events.model import Include, Snapshot
from app.llm.catalogue import Catalogue, ModelEntry
from app.llm.mcp import McpServers
from app.llm.model import ChatModel
from app.llm.toolbox import Toolbox
from app.runs.supervisor import Supervisor
from app.settings import Settings, comma_separated
from app.wire.cursor import Cursor, parse_cursor

ANONYMOUS = "anonymous"  # the one caller of an open gateway


@dataclass(frozen=True, slots=True)
class Gateway:
    """``store_name``: where runs' logs are. ``store_trouble``: why that cannot be reached just now,
    in a word or two."""

    settings: Settings
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


# Both are async without awaiting anything: FastAPI runs what is not async in a thread.


async def gateway(request: Request) -> Gateway:
    parts: Gateway = request.state.gateway
    return parts


async def caller(_: Request) -> str:
    """Who asks: there are no keys yet, so everybody is the same."""
    return ANONYMOUS


Parts = Annotated[Gateway, Depends(gateway)]
Caller = Annotated[str, Depends(caller)]


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
    owner: str,
    cursor: Cursor,
    include: Collection[Include] | None = None,
) -> Response:
    """Replay what follows the cursor, then follow. Raises ``NotFound``, ``BadCursor``,
    ``Overloaded``.

    204 stops an ``EventSource`` for good (WHATWG HTML 9.2.3); a ``POST`` gets an empty stream. A
    store that cannot be reached is no error yet: the reader has a stream, which waits for it.
    """
    find = partial(parts.supervisor.find, cursor.run_id, owner, cursor.seq)
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

        return NativeStream(LateBody(cursor.run_id, find_late, behind, heartbeat_s))
    if request.method == "GET" and _is_at_end(snapshot, cursor):
        return Response(status_code=204, headers={"cache-control": "no-store"})
    body = behind(snapshot)
    if snapshot.done is None:
        await parts.supervisor.announce(cursor.run_id)
    return NativeStream(body)


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


def stream(parts: Gateway, cursor: Cursor, include: Collection[Include]) -> NativeStream:
    """The events behind the cursor. Raises ``NotFound``."""
    return NativeStream(_body(parts, cursor, include, ended=False))


def _body(parts: Gateway, cursor: Cursor, include: Collection[Include], *, ended: bool) -> Body:
    """Raises ``NotFound``."""
    try:
        reader = None if ended else parts.log.read(cursor.run_id, cursor.seq)
    except LogGone:
        raise NotFound from None
    heartbeat_s = parts.settings.heartbeat_seconds
    return Body(parts.supervisor, reader, cursor.run_id, include, heartbeat_s)
