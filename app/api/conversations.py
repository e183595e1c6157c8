"""Conversations: list, show, rename, delete, and answer their last question anew."""

import base64
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse
from msgspec import structs
from pydantic import BaseModel, ConfigDict, Field

from app.api.body import AnswerBody, idempotency_key, json_body, query
from app.api.callers import Counted, CountedUnlessResuming
from app.api.chat import HEADERS, STARTED, start_answer
from app.api.deps import Parts, follow, last_event_id
from app.api.guard import listens_for_strangers
from app.api.reference import called
from app.api.times import rfc3339
from app.conversations.model import Conversation, Message, Thread
from app.conversations.store import Place, Unavailable
from app.errors import BadCursor, Forbidden, InvalidRequest, NotFound, Overloaded
from app.runs.exchange import AWAY
from app.settings import is_loopback
from app.wire.native import payload

router = APIRouter(prefix="/conversations", tags=["conversations"])

PAGE = 50  # conversations at most
NO_STORE = {"cache-control": "no-store"}


class Renamed(BaseModel):
    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    title: Annotated[str, Field(min_length=1, max_length=200)]


@router.get(
    "",
    responses=called(422),
    openapi_extra={
        "parameters": [
            {"name": "cursor", "in": "query", "schema": {"type": "string"}},
            {"name": "limit", "in": "query", "schema": {"type": "integer", "maximum": PAGE}},
        ]
    },
)
async def page(request: Request, parts: Parts, caller: Counted) -> JSONResponse:
    """The caller's own, last used first."""
    strangers = not is_loopback(parts.settings.host) or listens_for_strangers(request.scope)
    if parts.access.gate.is_open and strangers:
        raise Forbidden("Without keys nobody's conversations are listed: ask for one by its id.")
    fields = query(request, ("cursor", "limit"))
    limit = _limit(fields.get("limit", str(PAGE)))
    behind = _place(fields["cursor"]) if fields.get("cursor") else None
    with _refusing():
        found = await parts.store.page(caller.id, behind, limit + 1)
    shown = found[:limit]
    next_cursor = _cursor(shown[-1]) if len(found) > limit else None
    return JSONResponse(
        {"items": [_head(each) for each in shown], "next_cursor": next_cursor}, headers=NO_STORE
    )


@router.get("/{conversation_id}", responses=called(404))
async def show(conversation_id: str, parts: Parts, caller: Counted) -> JSONResponse:
    """With all its messages; `active` marks the branch that is shown."""
    with _refusing():
        await parts.journal.settled(conversation_id)
        thread = await parts.store.find(conversation_id, caller.id)
    if thread is None:
        raise NotFound
    active = _active(thread)
    messages = [_message(each, each.id in active) for each in thread.messages]
    return JSONResponse(_head(thread.conversation) | {"messages": messages}, headers=NO_STORE)


@router.patch(
    "/{conversation_id}",
    responses=called(404, 415, 422),
    openapi_extra={
        "requestBody": {"content": {"application/json": {"schema": Renamed.model_json_schema()}}}
    },
)
async def rename(
    request: Request, conversation_id: str, parts: Parts, caller: Counted
) -> JSONResponse:
    """Give it another title."""
    body = await json_body(request, Renamed, parts.settings.max_body_bytes)
    with _refusing():
        await parts.journal.settled(conversation_id)
        if not await parts.store.rename(conversation_id, caller.id, body.title):
            raise NotFound
        thread = await parts.store.find(conversation_id, caller.id)
    if thread is None:
        raise NotFound
    return JSONResponse(_head(thread.conversation), headers=NO_STORE)


@router.delete("/{conversation_id}", status_code=204, responses=called(404, 409))
async def delete(conversation_id: str, parts: Parts, caller: Counted) -> Response:
    """With all its messages. An answer that is being made is cancelled."""
    await parts.supervisor.silence(conversation_id, caller.id)
    with _refusing():
        await parts.journal.settled(conversation_id)
        if not await parts.store.delete(conversation_id, caller.id):
            raise NotFound
    await parts.supervisor.silence(conversation_id, caller.id)  # what began meanwhile
    return Response(status_code=204)


@router.post(
    "/{conversation_id}/regenerate",
    openapi_extra={
        "requestBody": {
            "content": {"application/json": {"schema": {"$ref": "#/components/schemas/AnswerBody"}}}
        },
        "parameters": HEADERS,
    },
    responses=STARTED,
    response_class=Response,
)
async def regenerate(
    request: Request, conversation_id: str, parts: Parts, caller: CountedUnlessResuming
) -> Response:
    """Answer the last question anew, as `POST /chat` does; the old answer stays as a version."""
    if cursor := last_event_id(request):
        return await follow(request, parts, caller, cursor)
    key = idempotency_key(request.headers.get("idempotency-key"))
    body = AnswerBody.model_validate({})
    headers = request.headers  # RFC 9112, section 6.3: without either there is no body
    if "transfer-encoding" in headers or int(headers.get("content-length", 0)):
        body = await json_body(request, AnswerBody, parts.settings.max_body_bytes)
    if body.conversation_id not in (None, conversation_id):
        raise InvalidRequest("conversation_id: the address names another one")
    body = body.model_copy(update={"conversation_id": conversation_id})
    return await start_answer(request, parts, caller, body, key)


@contextmanager
def _refusing() -> Iterator[None]:
    try:
        yield
    except Unavailable:
        raise Overloaded(AWAY) from None


def _limit(given: str) -> int:
    """More than a page is a page."""
    if not (given.isascii() and given.isdigit() and len(given) < 10 and int(given) > 0):
        raise InvalidRequest("limit takes a whole number from 1")
    return min(int(given), PAGE)


def _cursor(last: Conversation) -> str:
    place = Place(last.updated_at, last.id)
    return base64.urlsafe_b64encode(msgspec.json.encode(place)).decode().rstrip("=")


def _place(cursor: str) -> Place:
    try:
        padded = cursor + "=" * (-len(cursor) % 4)
        return msgspec.json.decode(base64.b64decode(padded, b"-_", validate=True), type=Place)
    except ValueError:  # msgspec's own are, too
        raise BadCursor("The cursor is not one that this gateway issued.") from None


def _head(conversation: Conversation) -> dict[str, Any]:
    return {
        "id": conversation.id,
        "title": conversation.title,
        "created_at": rfc3339(conversation.created_at),
        "updated_at": rfc3339(conversation.updated_at),
    }


def _active(thread: Thread) -> set[str]:
    """Ids of the messages from the root to the leaf."""
    parents = {message.id: message.parent_id for message in thread.messages}
    active, at = set[str](), thread.conversation.leaf_id
    while at in parents and at not in active:
        active.add(at)
        at = parents[at] or ""
    return active


def _message(message: Message, active: bool) -> dict[str, Any]:
    return {
        "id": message.id,
        "parent_id": message.parent_id,
        "role": message.role,
        "text": message.text,
        "status": message.status,
        "model": message.model,
        "usage": structs.asdict(message.usage) if message.usage else None,
        "created_at": rfc3339(message.created_at),
        "run_id": message.run_id,
        "tool_calls": [payload(call) for step in message.steps for call in step.calls],
        "tool_results": [payload(result) for step in message.steps for result in step.results],
        "reasoning": message.reasoning,
        "active": active,
    }
