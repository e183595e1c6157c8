"""Errors as HTTP: RFC 9457 problem bodies, the one mapper from the error tree to a status."""

import logging
from collections.abc import Mapping
from http import HTTPStatus

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from pydantic import ValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.routing import Match
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.errors import BusyError, GatewayError, Internal, InvalidRequest, Unauthorized

logger = logging.getLogger(__name__)

_CODES = {
    400: "invalid_request",
    404: "not_found",
    405: "method_not_allowed",
}
_DETAILS = {
    404: "There is no such thing here, or it has expired.",
    405: "This address does not take that method.",
}


def problem(error: GatewayError, request_id: str) -> Response:
    headers = None
    if isinstance(error, BusyError):
        headers = {"retry-after": str(error.retry_after_s)}
    elif isinstance(error, Unauthorized):
        headers = {"www-authenticate": "Bearer"}  # RFC 6750 section 3
    return _response(error.status, error.code, error.detail, request_id, headers)


def invalid(error: ValidationError | RequestValidationError) -> InvalidRequest:
    """Which field and why, without repeating what was sent."""
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"] if part != "body")
    why = str(first["msg"]).removeprefix("Value error, ")
    return InvalidRequest(f"{where}: {why}" if where else why)


def install(app: FastAPI) -> None:
    @app.exception_handler(GatewayError)
    async def _gateway_error(request: Request, error: GatewayError) -> Response:
        return problem(error, request.state.request_id)

    @app.exception_handler(RequestValidationError)
    async def _invalid(request: Request, error: RequestValidationError) -> Response:
        return problem(invalid(error), request.state.request_id)

    @app.exception_handler(HTTPException)
    async def _http_error(request: Request, error: HTTPException) -> Response:
        status = error.status_code
        headers = error.headers
        if status == HTTPStatus.METHOD_NOT_ALLOWED:
            headers = {"allow": ", ".join(_methods(request))}
        return _response(
            status,
            _CODES.get(status, "invalid_request" if status < 500 else "internal"),
            _DETAILS.get(status, HTTPStatus(status).phrase),
            request.state.request_id,
            headers,
        )


def _methods(request: Request) -> list[str]:
    """That the address takes; Starlette tells only those of the first route (RFC 9110 15.5.6)."""
    return [
        method
        for method in ("DELETE", "GET", "HEAD", "PATCH", "POST", "PUT")
        if any(
            route.matches({**request.scope, "method": method})[0] == Match.FULL
            for route in request.app.routes
        )
    ]


class CatchBugs:
    """Answers 500 where Starlette would, but inside of CORS, so that pages can read it."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = False

        async def noting(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            await self._app(scope, receive, noting)
        except ClientDisconnect:
            return  # while its body was read: nothing has begun, and nobody waits for an answer
        except Exception:
            if started or scope["type"] != "http":
                raise
            logger.exception("request %s met a bug", scope["state"]["request_id"])
            response = problem(Internal(), scope["state"]["request_id"])
            await response(scope, receive, send)


def _response(
    status: int, code: str, detail: str, request_id: str, headers: Mapping[str, str] | None
) -> Response:
    body = {
        "type": "about:blank",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
        "code": code,
        "request_id": request_id,
    }
    return JSONResponse(body, status, headers, "application/problem+json")
