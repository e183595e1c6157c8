"""Starting runs: ``POST /chat``, ``POST /stream-chat``, ``GET /chat``, ``POST /runs``."""

from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse

from app.api.body import QUERY_FIELDS, AnswerBody, ChatBody, chat_query, idempotency_key, json_body
from app.api.deps import Caller, Gateway, Parts, follow, last_event_id, stream
from app.errors import NotAcceptable
from app.events.model import RunRecord
from app.wire.cursor import Cursor

router = APIRouter(tags=["chat"])

_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {"application/json": {"schema": {"$ref": "#/components/schemas/ChatBody"}}},
    }
}
HEADERS: list[dict[str, Any]] = [
    {"name": name, "in": "header", "schema": {"type": "string"}}
    for name in ("Idempotency-Key", "Last-Event-ID")
]
STREAM: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The run's events, from its first or from behind `Last-Event-ID`.",
        "content": {"text/event-stream": {"schema": {"type": "string"}}},
    }
}
_QUERY: dict[str, Any] = {
    "parameters": [
        {"name": name, "in": "query", "required": name == "text", "schema": {"type": "string"}}
        for name in QUERY_FIELDS
    ]
}


@router.post(
    "/chat",
    openapi_extra=_BODY | {"parameters": HEADERS},
    responses=STREAM,
    response_class=Response,
)
@router.post(
    "/stream-chat",
    openapi_extra=_BODY | {"parameters": HEADERS},
    responses=STREAM,
    response_class=Response,
)
async def start_and_stream(request: Request, parts: Parts, owner: Caller) -> Response:
    """Start a run and stream it. With `Last-Event-ID`, resume that run and start nothing."""
    if cursor := last_event_id(request):
        return await follow(request, parts, owner, cursor)
    key = idempotency_key(request.headers.get("idempotency-key"))
    body = await json_body(request, ChatBody, parts.settings.max_body_bytes)
    return await start_answer(request, parts, owner, body, key)


@router.get("/chat", openapi_extra=_QUERY, responses=STREAM, response_class=Response)
async def start_by_link(request: Request, parts: Parts, owner: Caller) -> Response:
    """The same for `EventSource` and `curl -N`. Following a link never starts a run: 406."""
    if cursor := last_event_id(request):
        return await follow(request, parts, owner, cursor)
    if (
        request.headers.get("sec-fetch-mode") == "navigate"
        or "prefetch" in request.headers.get("sec-purpose", "")
        or "prefetch" in request.headers.get("purpose", "")
    ):
        raise NotAcceptable
    body, key = chat_query(request)
    key = idempotency_key(request.headers.get("idempotency-key", key))
    return await start_answer(request, parts, owner, body, key)


@router.post("/runs", openapi_extra=_BODY | {"parameters": HEADERS[:1]}, status_code=201)
async def start(request: Request, parts: Parts, owner: Caller) -> JSONResponse:
    """Start a run and stream nothing; its events can be read as often as wanted."""
    key = idempotency_key(request.headers.get("idempotency-key"))
    body = await json_body(request, ChatBody, parts.settings.max_body_bytes)
    record = await _start(request, parts, owner, body, key)
    snapshot = await parts.supervisor.find(record.run_id, owner)
    location = f"/runs/{record.run_id}"
    answer = {
        "run_id": record.run_id,
        "conversation_id": record.conversation_id,
        "status": snapshot.status,
        "events_url": f"{location}/events",
    }
    return JSONResponse(answer, 201, {"location": location, "cache-control": "no-store"})


async def start_answer(
    request: Request, parts: Gateway, owner: str, body: AnswerBody, key: str | None
) -> Response:
    parts.supervisor.expect_reader()
    record = await _start(request, parts, owner, body, key)
    await parts.supervisor.announce(record.run_id)  # it may have joined another worker's run
    return stream(parts, Cursor(record.run_id, 0), record.include)


async def _start(
    request: Request, parts: Gateway, owner: str, body: AnswerBody, key: str | None
) -> RunRecord:
    asked = body.request(parts, key)
    return await parts.supervisor.start(asked, owner, request.state.request_id)
