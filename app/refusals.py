"""What the server answers by itself, before there is an application to ask: contract section 8."""

import json
import secrets
from http import HTTPStatus

from app.errors import Overloaded, RequestTimeout

_DETAILS = {
    HTTPStatus.BAD_REQUEST: "Invalid HTTP request received. An address must be percent-encoded.",
    HTTPStatus.METHOD_NOT_ALLOWED: "This gateway is no proxy.",
    HTTPStatus.REQUEST_TIMEOUT: RequestTimeout.message,
    HTTPStatus.REQUEST_URI_TOO_LONG: "The address is too long: ask with POST.",
    HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE: "The header fields are too large.",
    HTTPStatus.SERVICE_UNAVAILABLE: Overloaded.message,
}
_CODES = {
    HTTPStatus.BAD_REQUEST: "invalid_request",
    HTTPStatus.METHOD_NOT_ALLOWED: "method_not_allowed",
    HTTPStatus.REQUEST_TIMEOUT: RequestTimeout.code,
    HTTPStatus.REQUEST_URI_TOO_LONG: "uri_too_long",
    HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE: "headers_too_large",
    HTTPStatus.SERVICE_UNAVAILABLE: Overloaded.code,
}


def refusal(status: HTTPStatus) -> bytes:
    """A whole answer, the last one on its connection."""
    request_id = secrets.token_urlsafe(16)
    body = json.dumps(
        {
            "type": "about:blank",
            "title": status.phrase,
            "status": status,
            "detail": _DETAILS[status],
            "code": _CODES[status],
            "request_id": request_id,
        }
    ).encode()
    lines = [
        f"HTTP/1.1 {status.value} {status.phrase}",
        "content-type: application/problem+json",
        f"content-length: {len(body)}",
        f"x-request-id: {request_id}",
        "x-content-type-options: nosniff",
        "cache-control: no-store",
        "connection: close",
    ]
    if status is HTTPStatus.SERVICE_UNAVAILABLE:
        lines.append(f"retry-after: {Overloaded.retry_after_s}")
    if status is HTTPStatus.METHOD_NOT_ALLOWED:
        lines.append("allow: GET, HEAD, POST, PATCH, DELETE")
    return "\r\n".join([*lines, "", ""]).encode() + body
