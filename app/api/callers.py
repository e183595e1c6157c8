"""Who calls, told before anything else is looked at, and how many requests that caller has left."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from fastapi import Depends, Request

from app.access import model
from app.access.gate import Gate
from app.access.keys import KeysFile
from app.access.quota_headers import headers as quota_headers
from app.access.quotas import Quotas
from app.access.requests import RequestQuota, Standing
from app.access.sessions import Sessions
from app.access.watch import Watch
from app.errors import RateLimited

if TYPE_CHECKING:
    from app.access.tokens import Tokens


@dataclass(frozen=True, slots=True)
class Access:
    """Who may, and how much. ``keys``, ``tokens``: None where there are none, ``sessions`` where
    the gateway is open. ``requests``: None where nobody has a limit of them."""

    gate: Gate
    watch: Watch
    quotas: Quotas
    requests: RequestQuota | None = None
    sessions: Sessions | None = None
    keys: KeysFile | None = None
    tokens: "Tokens | None" = None


async def caller(request: Request) -> model.Caller:
    """Who asks. Raises ``Unauthorized``, ``RateLimited`` (failed tries), ``IdentityAway``."""
    return await _identified(request, request.scope["headers"])


async def counted(request: Request) -> model.Caller:
    """Who asks, which is one request more of it. Raises as ``caller`` and ``count``."""
    found = await caller(request)
    await count(request, found)
    return found


async def counted_unless_resuming(request: Request) -> model.Caller:
    """The same, for endpoints that resume with ``Last-Event-ID``: that is never limited."""
    if request.headers.get("last-event-id", "").strip():
        return await caller(request)
    return await counted(request)


Caller = Annotated[model.Caller, Depends(caller)]
Counted = Annotated[model.Caller, Depends(counted)]
CountedUnlessResuming = Annotated[model.Caller, Depends(counted_unless_resuming)]


async def caller_by_header(request: Request) -> model.Caller:
    """Who asks, by key or token and not by a session. Raises as ``caller``."""
    shown = [(name, value) for name, value in request.scope["headers"] if name != b"cookie"]
    return await _identified(request, shown)


async def count(request: Request, caller: model.Caller) -> None:
    """One request more. Raises ``RateLimited``."""
    requests: RequestQuota | None = request.state.gateway.access.requests
    if requests is None:
        return
    try:
        standing = await requests.count(caller)
    except RateLimited as refusal:
        tell(request, requests.refused(caller, refusal))
        raise
    tell(request, standing)


def tell(request: Request, *standings: Standing | None) -> None:
    """How the caller stands, in the head of whatever the answer will be. None: without a limit."""
    told = request.scope["state"].setdefault("standings", [])
    told += filter(None, standings)
    request.state.quota = quota_headers(told)


async def _identified(request: Request, headers: Iterable[tuple[bytes, bytes]]) -> model.Caller:
    scope = request.scope
    address = scope["client"][0] if scope["client"] else ""  # a Unix socket has none
    gate: Gate = request.state.gateway.access.gate
    return await gate.identify(headers, address, is_tls=scope["scheme"] == "https")
