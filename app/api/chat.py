"""Starting runs: ``POST /chat``, ``POST /stream-chat``, ``GET /chat``, ``POST /runs``."""

from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse

from app.access.model import Caller
from app.api.body import QUERY_FIELDS, AnswerBody, ChatBody, chat_query, idempotency_key, json_body
from app.api.callers import Counted, CountedUnlessResuming, tell
from app.api.deps import Gateway, Parts, follow, last_event_id, stream
from app.api.reference import NOTHING_LEFT, STREAM, called
from app.errors import NotAcceptable, RateLimited
from app.events.model import RunRecord

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
STARTED = called(404, 409, 415, 422) | STREAM
_BY_LINK = called(404, 406, 409, 422) | STREAM | NOTHING_LEFT
_QUERY: dict[str, Any] = {
    "parameters": [
        {"name": name, "in": "query", "required": name == "text", "schema": {"type": "string"}}
        for name in QUERY_FIELDS
    ]
}


@router.post(
    "/chat",
    openapi_extra=_BODY | {"parameters": HEADERS},
    responses=STARTED,
    response_class=Response,
)
@router.post(
    "/stream-chat",
    openapi_extra=_BODY | {"parameters": HEADERS},
    responses=STARTED,
    response_class=Response,
)
async def start_and_stream(
    request: Request, parts: Parts, caller: CountedUnlessResuming
) -> Response:
    """Start a run and stream it. With `Last-Event-ID`, resume that run and start nothing."""
    if cursor := last_event_id(request):
        return await follow(request, parts, caller, cursor)
    key = idempotency_key(request.headers.get("idempotency-key"))
    body = await json_body(request, ChatBody, parts.settings.max_body_bytes)
    return await start_answer(request, parts, caller, body, key)


@router.get("/chat", openapi_extra=_QUERY, responses=_BY_LINK, response_class=Response)
async def start_by_link(request: Request, parts: Parts, caller: CountedUnlessResuming) -> Response:
    """The same for `EventSource` and `curl -N`. Following a link never starts a run: 406."""
    if cursor := last_event_id(request):
        return await follow(request, parts, caller, cursor)
    if (
        request.headers.get("sec-fetch-mode") == "navigate"
        or "prefetch" in request.headers.get("sec-purpose", "")
        or "prefetch" in request.headers.get("purpose", "")
    ):
        raise NotAcceptable
    body, key = chat_query(request)
    key = idempotency_key(request.headers.get("idempotency-key", key))
    return await start_answer(request, parts, caller, body, key)


@router.post(
    "/runs",
    openapi_extra=_BODY | {"parameters": HEADERS[:1]},
    status_code=201,
    responses=called(404, 409, 415, 422),
)
async def start(request: Request, parts: Parts, caller: Counted) -> JSONResponse:
    """Start a run and stream nothing; its events can be read as often as wanted."""
    key = idempotency_key(request.headers.get("idempotency-key"))
    body = await json_body(request, ChatBody, parts.settings.max_body_bytes)
    record = await _start(request, parts, caller, body, key)
    snapshot = await parts.supervisor.find(record.run_id, caller.id)
    location = f"/runs/{record.run_id}"
    answer = {
        "run_id": record.run_id,
        "conversation_id": record.conversation_id,
        "status": snapshot.status,
        "events_url": f"{location}/events",
    }
    return JSONResponse(answer, 201, {"location": location, "cache-control": "no-store"})


async def start_answer(
    request: Request, parts: Gateway, caller: Caller, body: AnswerBody, key: str | None
) -> Response:
    parts.supervisor.expect_reader()
    record = await _start(request, parts, caller, body, key)
    await parts.supervisor.announce(record.run_id)  # it may have joined another worker's run
    return stream(request, parts, caller, record)


async def _start(
    request: Request, parts: Gateway, caller: Caller, body: AnswerBody, key: str | None
) -> RunRecord:
    asked = body.request(parts, caller, key)
    try:
        record = await parts.supervisor.start(asked, caller.id, request.state.request_id)
    except RateLimited:
        tell(request, *await parts.access.quotas.standing(caller.id, caller.limits))
        raise
    tell(request, *await parts.access.quotas.standing(caller.id, caller.limits))
    return record
