"""What operators and clients ask about the gateway itself: models, health, readiness."""

from typing import Any

from fastapi import APIRouter
from fastapi.responses import JSONResponse

from app.api.deps import Parts

router = APIRouter(tags=["service"])


@router.get("/models")
async def models(parts: Parts) -> dict[str, Any]:
    """The models by name, with what they can do; null where nobody told us."""
    default = {
        "name": parts.settings.model,
        "default": True,
        "tools": False,
        "reasoning": None,
        "context_window": None,
    }
    return {"items": [default]}


@router.get("/health")
async def health() -> dict[str, str]:
    """The process lives."""
    return {"status": "ok"}


@router.get("/ready", responses={503: {"description": "It cannot take work now."}})
async def ready(parts: Parts) -> JSONResponse:
    """It can take work; which part cannot, if not."""
    library = parts.model.state
    draining = parts.supervisor.draining
    checks = {
        "model_library": (library == "ready", library),
        "store": (True, "in memory"),
        "accepting": (not draining, "draining" if draining else "accepting runs"),
    }
    ok = all(passes for passes, _ in checks.values())
    body = {
        "status": "ok" if ok else "unavailable",
        "parts": {
            name: {"status": "ok" if passes else "unavailable", "detail": detail}
            for name, (passes, detail) in checks.items()
        },
    }
    return JSONResponse(body, 200 if ok else 503, {"cache-control": "no-store"})
