"""What the API reference says beyond what FastAPI sees: bodies that the endpoints read themselves,
the problems of each, and which of them ask who calls."""

from collections.abc import Iterator
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI

from app.access.credentials import cookie_name
from app.api.body import AnswerBody, ChatBody
from app.events.model import Event

Responses = dict[int | str, dict[str, Any]]

# Of every request: what no server can parse, other sites' pages, and what is too large or too slow.
_ALWAYS = (400, 403, 408, 413, 414, 431)
_CALLED = (401, 429, 503)  # of one that asks who calls
_EVENT = {
    "type": "object",
    "required": ["event", "data"],
    "properties": {
        "id": {"type": "string"},
        "event": {"enum": [kind.name for kind in Event.__subclasses__()]},
        "data": {
            "type": "string",
            "contentMediaType": "application/json",
            "contentSchema": {"type": "object"},
        },
        "retry": {"type": "integer"},
    },
}
STREAM: Responses = {
    200: {
        "description": "The run's events, from its first or from behind the cursor.",
        # As OpenAPI 3.2 has it, and FastAPI in 3.1 too.
        "content": {"text/event-stream": {"itemSchema": _EVENT}},
    }
}
NOTHING_LEFT: Responses = {
    204: {"description": "The run has finished and nothing is left: do not come back."}
}
_TEXTS = ("type", "title", "detail", "code", "request_id")
_PROBLEM = {
    "description": "RFC 9457",
    "type": "object",
    "required": [*_TEXTS, "status"],
    "properties": {
        **{field: {"type": "string"} for field in _TEXTS},
        "status": {"type": "integer"},
    },
}
_RETRY_AFTER = {"Retry-After": {"description": "seconds", "schema": {"type": "integer"}}}
_HEADERS: dict[int, dict[str, Any]] = {
    401: {"WWW-Authenticate": {"schema": {"type": "string"}}},
    **dict.fromkeys((409, 429, 503), _RETRY_AFTER),
}
_SCHEMES: dict[str, dict[str, str]] = {
    "bearer": {"type": "http", "scheme": "bearer"},
    "key_header": {"type": "apiKey", "in": "header", "name": "x-api-key"},
    "tls_session": {"type": "apiKey", "in": "cookie", "name": cookie_name(is_tls=True)},
    "session": {"type": "apiKey", "in": "cookie", "name": cookie_name(is_tls=False)},
}
_NO_SESSION = ("bearer", "key_header")
_ONE_QUESTION = {
    "oneOf": [
        {"required": [field], "properties": {field: {"type": "string"}}}
        for field in ("text", "query")
    ]
}


def problems(*statuses: int) -> Responses:
    """With those that every request may end with."""
    return {status: _problem(status) for status in sorted({*_ALWAYS, *statuses})}


def called(*statuses: int) -> Responses:
    """As ``problems``, of an endpoint that asks who calls."""
    return problems(*_CALLED, *statuses)


def complete(app: FastAPI, *, is_open: bool) -> None:
    """``is_open``: nobody needs a key."""
    made = app.openapi

    def openapi() -> dict[str, Any]:
        document = made()
        components = document.setdefault("components", {})
        schemas = components.setdefault("schemas", {})
        schemas["Problem"] = _PROBLEM
        for body in (ChatBody, AnswerBody):
            schemas.setdefault(body.__name__, body.model_json_schema())
        schemas[ChatBody.__name__].update(_ONE_QUESTION)
        for name in ("HTTPValidationError", "ValidationError"):
            schemas.pop(name, None)
        for path, operation in _operations(document):
            responses = operation["responses"]
            if "HTTPValidationError" in str(responses.get("422")):
                del responses["422"]  # FastAPI thinks that every path may be wrong
            if "401" in responses and not is_open:
                exchanges = path == "/session" and "201" in responses
                names = _NO_SESSION if exchanges else _SCHEMES
                operation["security"] = [{name: []} for name in names]
        if not is_open:
            components["securitySchemes"] = _SCHEMES
        return document

    app.openapi = openapi  # type: ignore[method-assign]  # FastAPI's documented way


def _operations(document: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for path, methods in document["paths"].items():
        for operation in methods.values():
            yield path, operation


def _problem(status: int) -> dict[str, Any]:
    schema = {"$ref": "#/components/schemas/Problem"}
    described = {
        "description": HTTPStatus(status).phrase,
        "content": {"application/problem+json": {"schema": schema}},
    }
    return described | ({"headers": _HEADERS[status]} if status in _HEADERS else {})
