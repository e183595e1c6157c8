"""One run: how it stands, its events, its end. ``/runs/{id}`` and below."""

from dataclasses import asdict
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse
from msgspec import structs

from app.api.body import query
from app.api.callers import Caller, Counted
from app.api.deps import Parts, follow, included, last_event_id
from app.api.reference import NOTHING_LEFT, STREAM, called
from app.api.times import rfc3339
from app.errors import BadCursor
from app.events.model import Snapshot
from app.wire.cursor import Cursor, parse_seq

router = APIRouter(prefix="/runs", tags=["runs"])

_STOPPED = called(404) | {202: {"description": "It has not ended within 10 s."}}


@router.get("/{run_id}", responses=called(404))
async def show(run_id: str, parts: Parts, caller: Counted) -> JSONResponse:
    """How a run stands."""
    snapshot = await parts.supervisor.find(run_id, caller.id)
    return JSONResponse(_shown(snapshot), headers={"cache-control": "no-store"})


@router.get(
    "/{run_id}/events",
    response_class=Response,
    responses=called(404, 422) | STREAM | NOTHING_LEFT,
    openapi_extra={
        "parameters": [
            {"name": "after", "in": "query", "schema": {"type": "integer", "minimum": 0}},
            {"name": "include", "in": "query", "schema": {"type": "string"}},
            {"name": "Last-Event-ID", "in": "header", "schema": {"type": "string"}},
        ]
    },
)
async def events(request: Request, run_id: str, parts: Parts, caller: Caller) -> Response:
    """Replay what follows the cursor, then follow. Never starts work."""
    fields = query(request, ("after", "include"))
    cursor = last_event_id(request) or Cursor(run_id, parse_seq(fields.get("after") or "0"))
    if cursor.run_id != run_id:
        raise BadCursor
    include = included(fields["include"]) if "include" in fields else None
    return await follow(request, parts, caller, cursor, include)


@router.delete("/{run_id}", responses=_STOPPED)
@router.post("/{run_id}/cancel", responses=_STOPPED)
async def cancel(run_id: str, parts: Parts, caller: Caller) -> JSONResponse:
    """Stop a run and wait until its upstream call has ended. Idempotent."""
    stopped = await parts.supervisor.cancel(run_id, caller.id)
    if stopped.status == "running":
        return JSONResponse({"run_id": run_id, "status": stopped.status}, 202)
    return JSONResponse(asdict(stopped))


def _shown(snapshot: Snapshot) -> dict[str, Any]:
    record, done, error = snapshot.record, snapshot.done, snapshot.error
    return {
        "run_id": record.run_id,
        "conversation_id": record.conversation_id,
        "model": record.model,
        "status": snapshot.status,
        "created_at": rfc3339(record.created_at),
        "finished_at": rfc3339(done.finished_at) if done else None,
        "usage": structs.asdict(done.usage) if done else None,
        "error": {"code": error.code, "message": error.message, "retryable": error.retryable}
        if error
        else None,
        "last_seq": snapshot.last_seq,
        "answered_by": done.answered_by if done else None,
        "attempts": done.attempts if done else None,
    }
