"""The chat page and the API reference: files as they are, under a strict policy, offline.

Served are the files with known endings that lie in ``frontend/`` when the gateway starts, and the
Swagger UI that ``fastapi-offline`` packs; nothing else of either folder can be asked for.
"""

from importlib.util import find_spec
from pathlib import Path

from fastapi import APIRouter
from fastapi.responses import FileResponse

FRONTEND = Path(__file__).parents[2] / "frontend"
_SERVED = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
    ".png": "image/png",
}
_NOT_SERVED = {"node_modules"}
# Nothing from elsewhere, nothing inline (W3C CSP 3). data: images, for Swagger UI's own icons.
HEADERS = {
    "content-security-policy": (
        "default-src 'self'; img-src 'self' data:; object-src 'none'; base-uri 'none'; "
        "form-action 'self'; frame-ancestors 'none'"
    ),
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    # The page uses none of what browsers ask people for.
    "permissions-policy": "camera=(), microphone=(), geolocation=(), payment=(), usb=()",
    "cache-control": "no-cache",
}


def page_files() -> dict[str, Path]:
    """URL path of each file that any page may load, and where it lies."""
    files = {"/docs/" + name: path for name, path in _swagger_ui().items()}
    for path in FRONTEND.rglob("*"):
        parts = path.relative_to(FRONTEND).parts
        if path.suffix in _SERVED and not _NOT_SERVED & set(parts):
            files["/" + "/".join(parts)] = path
    files["/"] = FRONTEND / "index.html"
    files["/docs"] = FRONTEND / "docs" / "index.html"
    return files


def page_router(files: dict[str, Path]) -> APIRouter:
    router = APIRouter(include_in_schema=False)
    for url, path in files.items():
        router.add_api_route(url, _sender(path), methods=["GET", "HEAD"])
    return router


def _sender(path: Path):  # type: ignore[no-untyped-def]  # FastAPI reads the inner signature
    async def send() -> FileResponse:
        return FileResponse(path, media_type=_SERVED[path.suffix], headers=HEADERS)

    return send


def _swagger_ui() -> dict[str, Path]:
    spec = find_spec("fastapi_offline")
    if spec is None or not spec.submodule_search_locations:
        raise RuntimeError("fastapi-offline is not installed")
    static = Path(spec.submodule_search_locations[0]) / "static"
    return {name: static / name for name in ("swagger-ui-bundle.js", "swagger-ui.css")}
