"""Bytes of OpenAI's chat completions and of HTTP/1.1 answers. Pure.

All that the chunks of one answer have in common is encoded once, so that a chunk costs one
``json.dumps`` of a short string and one concatenation. ASCII only: ``json`` escapes a lone
surrogate as it is, which is how real servers come to send one.
"""

import json
from collections.abc import Mapping

from app.simulator.steps import Garbage, ToolPart
from app.simulator.texts import SECRET

DONE = b"data: [DONE]\n\n"
COMMENT = b": ping\n\n"  # with the blank line, as OpenRouter sends its own
LAST_CHUNK = b"0\r\n\r\n"

# What no correct server sends: for each kind the bytes in a stream, and as an unstreamed body.
GARBAGE: dict[Garbage, tuple[bytes, bytes]] = {
    Garbage.JSON: (
        b'data: {"id":"chatcmpl-1","choices":[{"index":0,"delta":{"content":"br\n\n',
        b'{"id":"chatcmpl-1","choices":[{"index":0,"mess',
    ),
    Garbage.SHAPE: (b'data: []\n\ndata: {"choices":[{}]}\n\n', b"[]"),
    Garbage.UTF8: (
        b'data: {"choices":[{"index":0,"delta":{"content":"\xff\xfe\xc3("}}]}\n\n',
        b'{"choices":[{"index":0,"message":{"role":"assistant","content":"\xff\xfe\xc3("}}]}',
    ),
}
PAGE = f"<!doctype html><title>Gateway</title><h1>Please log in</h1><p>{SECRET}".encode()

_REASONS = {
    200: "OK",
    400: "Bad Request",
    401: "Unauthorized",
    403: "Forbidden",
    404: "Not Found",
    405: "Method Not Allowed",
    408: "Request Timeout",
    409: "Conflict",
    413: "Content Too Large",
    422: "Unprocessable Content",
    429: "Too Many Requests",
    431: "Request Header Fields Too Large",
    500: "Internal Server Error",
    502: "Bad Gateway",
    503: "Service Unavailable",
    504: "Gateway Timeout",
}


def dumps(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def head(
    status: int,
    content_type: str,
    *,
    length: int | None,
    close: bool = False,
    chunked: bool = False,
    extra: Mapping[str, str] | None = None,
) -> bytes:
    """An answer's head. Without ``length`` and ``chunked`` the body ends with the connection."""
    lines = [f"HTTP/1.1 {status} {_REASONS.get(status, 'Scripted')}"]
    lines.append(f"content-type: {content_type}")
    if length is not None:
        lines.append(f"content-length: {length}")
    if chunked:
        lines.append("transfer-encoding: chunked")
    if close:
        lines.append("connection: close")
    lines += [f"{name}: {value}" for name, value in (extra or {}).items()]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1", "replace")


def chunk(data: bytes) -> bytes:
    """One chunk of the chunked transfer coding (RFC 9112, section 7.1)."""
    return b"%x\r\n%b\r\n" % (len(data), data)


def error_body(message: str, code: str | None, *, status: int) -> bytes:
    """An error as OpenAI words it; ``type`` follows from the status."""
    kind = "server_error" if status >= 500 else "invalid_request_error"
    if code in {"insufficient_quota", "rate_limit_exceeded"}:
        kind = code
    return dumps({"error": {"message": message, "type": kind, "param": None, "code": code}})


def usage(prompt: int, completion: int, reasoning: int) -> dict[str, object]:
    """Token counts as OpenAI reports them; one chunk counts as one token."""
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "completion_tokens_details": {"reasoning_tokens": reasoning},
        "prompt_tokens_details": {"cached_tokens": 0},
    }


class Frames:
    """The frames of one answer."""

    def __init__(self, answer_id: str, created: int, model: str, *, with_usage: bool) -> None:
        self._base = {
            "id": answer_id,
            "object": "chat.completion.chunk",
            "created": created,
            "model": model,
            "service_tier": "default",
            "system_fingerprint": "fp_simulator",
        }
        before = b"data: " + dumps(self._base)[:-1] + b',"choices":[{"index":0,"delta":'
        tail = b',"usage":null}\n\n' if with_usage else b"}\n\n"
        self._before, self._tail = before, tail
        self._after = b',"logprobs":null,"finish_reason":null}]' + tail
        self._content = before + b'{"content":'
        self._reasoning = before + b'{"reasoning_content":'
        self._end = b"}" + self._after

    def role(self, content: str | None) -> bytes:
        delta = {"role": "assistant", "content": content, "refusal": None}
        return self._before + dumps(delta) + self._after

    def content(self, text: str) -> bytes:
        return self._content + json.dumps(text).encode() + self._end

    def reasoning(self, text: str) -> bytes:
        return self._reasoning + json.dumps(text).encode() + self._end

    def tool(self, part: ToolPart) -> bytes:
        if part.id is None:
            call: dict[str, object] = {"index": part.index}
            call["function"] = {"arguments": part.arguments}
        else:
            call = {"index": part.index, "id": part.id, "type": "function"}
            call["function"] = {"name": part.name, "arguments": part.arguments}
        return self._before + dumps({"tool_calls": [call]}) + self._after

    def finish(self, reason: str) -> bytes:
        finish = b'{},"logprobs":null,"finish_reason":' + dumps(reason) + b"}]"
        return self._before + finish + self._tail

    def usage(self, counts: Mapping[str, object]) -> bytes:
        return b"data: " + dumps({**self._base, "choices": [], "usage": counts}) + b"\n\n"

    def error(self, code: str) -> bytes:
        return b"data: " + error_body(f"The model broke: {SECRET}", code, status=500) + b"\n\n"

    def whole(
        self, message: Mapping[str, object], reason: str | None, counts: Mapping[str, object] | None
    ) -> bytes:
        """The body of an unstreamed answer."""
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": reason}
        body = {**self._base, "object": "chat.completion", "choices": [choice]}
        return dumps(body if counts is None else {**body, "usage": counts})
