"""What operators and clients ask about the gateway itself: models, health, readiness."""

from typing import Any

from fastapi import APIRouter
from fastapi.responses import JSONResponse

from app.api.deps import Parts

router = APIRouter(tags=["service"])


@router.get("/models")
async def models(parts: Parts) -> dict[str, Any]:
    """The models by name, with what they can do: the tools that they may use, how they show
    reasoning, tokens of their context window; null where nobody told us."""
    items = [
        {
            "name": entry.name,
            "default": entry.name == parts.catalogue.default.name,
            "tools": None if entry.runnable else parts.tools_of(entry),  # it has its own
            "reasoning": entry.reasoning,
            "context_window": entry.context_window,
        }
        for entry in parts.catalogue
    ]
    return {"items": items}


@router.get("/health")
async def health() -> dict[str, str]:
    """The process lives."""
    return {"status": "ok"}


@router.get("/ready", responses={503: {"description": "It cannot take work now."}})
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
    servers = {
        f"tools_{name}": (wrong is None, wrong or "connected")
        for name, wrong in parts.tool_servers.status.items()
    }
    ok = all(passes for passes, _ in needed.values())
    well = all(passes for passes, _ in servers.values())
    body = {
        "status": ("ok" if well else "degraded") if ok else "unavailable",
        "parts": {
            name: {"status": "ok" if passes else "unavailable", "detail": detail}
            for name, (passes, detail) in {**needed, **servers}.items()
        },
    }
    return JSONResponse(body, 200 if ok else 503, {"cache-control": "no-store"})
