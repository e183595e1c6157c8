"""What operators and clients ask about the gateway itself: models, health, readiness."""

from typing import Any

from fastapi import APIRouter
from fastapi.responses import JSONResponse

from app.api.callers import Counted
from app.api.deps import Parts
from app.api.reference import Responses, called, problems

router = APIRouter(tags=["service"])

_UNREADY: Responses = {503: {"description": "It cannot take work now."}}


@router.get("/models", responses=called())
async def models(parts: Parts, caller: Counted) -> dict[str, Any]:
    """The models that the caller may use, by name, with what they can do: the tools that they may
    use, how they show reasoning, tokens of their context window; null where nobody told us."""
    default = parts.default_of(caller)
    items = [
        {
            "name": entry.name,
            "default": default is not None and entry.name == default.name,
            "tools": None if entry.runnable else parts.tools_of(entry),  # it has its own
            "reasoning": entry.reasoning,
            "context_window": entry.context_window,
        }
        for entry in parts.models_of(caller)
    ]
    return {"items": items}


@router.get("/health", responses=problems())
async def health() -> dict[str, str]:
    """The process lives."""
    return {"status": "ok"}


@router.get("/ready", responses=problems() | _UNREADY)
async def ready(parts: Parts) -> JSONResponse:
    """It can take work; which part cannot, if not. Without one of its tool servers it can."""
    library = parts.model.state
    database = parts.store.trouble or parts.journal.trouble
    store = parts.store_trouble()
    draining = parts.supervisor.draining
    needed = {
        "model_library": (library == "ready", library),
        "store": (store is None, store or parts.store_name),
        "database": (database is None, database or "open"),
        "accepting": (not draining, "draining" if draining else "accepting runs"),
    }
    useful = {
        f"tools_{name}": (wrong is None, wrong or "connected")
        for name, wrong in parts.tool_servers.status.items()
    }
    if (keys := parts.access.keys) is not None:
        # Those that it had are taken all the same.
        useful["keys"] = (keys.trouble is None, keys.trouble or "can be checked")
    if (tokens := parts.access.tokens) is not None:
        # Who has a key gets in all the same.
        part = {"tokens": (tokens.trouble is None, tokens.trouble or "can be checked")}
        (needed if keys is None else useful).update(part)
    ok = all(passes for passes, _ in needed.values())
    well = all(passes for passes, _ in useful.values())
    body = {
        "status": ("ok" if well else "degraded") if ok else "unavailable",
        "parts": {
            name: {"status": "ok" if passes else "unavailable", "detail": detail}
            for name, (passes, detail) in {**needed, **useful}.items()
        },
    }
    return JSONResponse(body, 200 if ok else 503, {"cache-control": "no-store"})
