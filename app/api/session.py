"""A browser's session: a key or token in, a cookie out. ``/session``.

``EventSource`` sends cookies and no header of ours, and what a page's scripts cannot read they
cannot lose. No session begins with a cookie: it would have no end.
"""

import math
import time
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse

from app.access.credentials import cookie_name
from app.api.callers import Caller, caller_by_header, count
from app.api.deps import Parts
from app.api.reference import Responses, called, problems
from app.api.times import rfc3339
from app.errors import NotFound

router = APIRouter(prefix="/session", tags=["session"])

NO_STORE = {"cache-control": "no-store"}
_SHOWN = {
    "application/json": {
        "schema": {
            "type": "object",
            "required": ["caller", "expires_at"],
            "properties": {
                "caller": {"type": "string"},
                "expires_at": {"type": ["string", "null"], "format": "date-time"},
            },
        }
    }
}
_BEGUN: Responses = {201: {"description": "Who calls, and a cookie.", "content": _SHOWN}}
_CALLS: Responses = {200: {"description": "Who calls.", "content": _SHOWN}}


@router.post("", status_code=201, responses=called(404) | _BEGUN)
async def begin(request: Request, parts: Parts) -> JSONResponse:
    """Exchange the key or token in this request's header for a cookie. 404 on an open gateway."""
    sessions = parts.access.sessions
    if sessions is None:
        raise NotFound
    caller = await caller_by_header(request)
    await count(request, caller)
    value, ends_at = sessions.begin(caller)
    response = JSONResponse(_shown(caller.id, ends_at), 201, NO_STORE)
    _set_cookie(response, value, max(0, int(ends_at - time.time())), is_tls=_is_tls(request))
    return response


@router.get("", responses=called() | _CALLS)
async def show(caller: Caller) -> JSONResponse:
    """Who calls, and until when; `anonymous` on an open gateway."""
    return JSONResponse(_shown(caller.id, caller.expires_at), headers=NO_STORE)


@router.delete("", status_code=204, responses=problems())
async def end(request: Request, parts: Parts) -> Response:
    """Sign out: the cookie is good for nothing any more, wherever a copy of it is."""
    response = Response(status_code=204, headers=NO_STORE)
    for is_tls in (True, False):
        value = request.cookies.get(cookie_name(is_tls=is_tls))
        if value and parts.access.sessions is not None:
            parts.access.sessions.end(value)
        _set_cookie(response, "", 0, is_tls=is_tls)
    return response


def _is_tls(request: Request) -> bool:
    return bool(request.scope["scheme"] == "https")


def _set_cookie(response: Response, value: str, max_age_s: int, *, is_tls: bool) -> None:
    """No domain: this host alone. Under ``__Host-`` browsers see to that (RFC 6265bis 4.1.3)."""
    response.set_cookie(
        cookie_name(is_tls=is_tls),
        value,
        max_age=max_age_s,
        path="/",
        secure=is_tls,
        httponly=True,
        samesite="strict",
    )


def _shown(caller_id: str, expires_at: float) -> dict[str, Any]:
    """A key may be for ever."""
    return {
        "caller": caller_id,
        "expires_at": None if math.isinf(expires_at) else rfc3339(expires_at),
    }
