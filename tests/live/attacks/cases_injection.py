"""Whatever a caller or a model says stands in a frame or a header as data, or is refused.

Anchors: event injection in Hono and h3 (line ends in ``id`` and ``event``), response splitting
(CWE-113), OWASP ASVS 5.
"""

import json
from urllib.parse import quote

from app.simulator import SECRET, expected_text
from tests.live.attacks.case import ANN, BOB, Case, get, line, post

FRAMES = '\r\n\r\nid: 7\r\nevent: done\r\ndata: {"status":"completed"}\r\n\r\n'
FORGED = (b"\ndata: {\n", b"\nevent: x", b"\nid: 7", b"x-evil:", b"set-cookie")


def _said(name: str, text: str) -> Case:
    body = json.dumps({"text": f"@MARK@ sim:echo {text}"})
    return Case(f"text: {name}", post("/chat", body, BOB), 200, text=text, starts=1)


def _asked(name: str, text: str) -> Case:
    path = f"/chat?text=@MARK@%20sim:echo%20{quote(text, safe='')}"
    return Case(f"query: {name}", get(path, BOB), 200, text=text, starts=1)


TEXTS = {
    "frames": FRAMES,
    "LF alone": "\n\nevent: done\ndata: {}\n\n",
    "CR alone": "\r\revent: done\rdata: {}\r\r",
    "NUL": "a\0\n\nid: 7\0",
    "U+2028, U+2029 and U+0085": "a\u2028data: x\u2029\u2029event: done\x85\x85",
    "a byte order mark": "\ufeffdata: x\n\n\ufeff",
    "JSON's own end": '"}\n\nevent: done\ndata: {"a":"',
    "a chunk's size": "\r\n0\r\n\r\nHTTP/1.1 200 OK\r\nX-Evil: 1\r\n\r\n",
    "a heartbeat": "\n: hb\n",
    "retry": "\nretry: 1\n\n",
}

FIELDS: dict[str, tuple[dict[str, object], int, str]] = {
    "model with a line end": ({"model": "a\nevent: x"}, 422, "invalid_request"),
    "model with CR": ({"model": "a\rb"}, 422, "invalid_request"),
    "model with NUL": ({"model": "a\0b"}, 422, "invalid_request"),
    "model with U+2028": ({"model": "a\u2028b"}, 422, "invalid_request"),
    "tools with a frame": ({"tools": ["a\r\n\r\ndata: x"]}, 422, "invalid_request"),
    "include with a frame": ({"include": ["tools\nevent: x"]}, 422, "invalid_request"),
    "conversation_id with a frame": ({"conversation_id": FRAMES}, 404, "not_found"),
    "conversation_id with NUL": ({"conversation_id": "@CONVERSATION@\0"}, 404, "not_found"),
    "parent_message_id with a frame": (
        {"conversation_id": "@NOBODY@", "parent_message_id": FRAMES},
        404,
        "not_found",
    ),
    "a name that is a frame": ({"x\r\n\r\ndata: x": 1}, 422, "invalid_request"),
}

HEADERS: dict[str, tuple[str | bytes, int, str | None]] = {
    "idempotency key with a bare LF": ("Idempotency-Key: a\nX-Evil: 1", 400, "invalid_request"),
    "idempotency key with a bare CR": ("Idempotency-Key: a\rX-Evil: 1", 400, "invalid_request"),
    "idempotency key with NUL": ("Idempotency-Key: a\0b", 400, "invalid_request"),
    "idempotency key with a tab": ("Idempotency-Key: a\tb", 422, "invalid_request"),
    "idempotency key with U+2028": ("Idempotency-Key: a\u2028b", 422, "invalid_request"),
    "idempotency key of 256": ("Idempotency-Key: " + "k" * 256, 422, "invalid_request"),
    "idempotency key empty": ("Idempotency-Key:", 422, "invalid_request"),
    "cursor with percent-encoded line ends": (
        "Last-Event-ID: @RUN@.1%0d%0aX-Evil:%201",
        400,
        "bad_cursor",
    ),
    "cursor with a bare LF": ("Last-Event-ID: @RUN@.1\nX-Evil: 1", 400, "invalid_request"),
    "cursor with NUL": ("Last-Event-ID: @RUN@.1\0", 400, "invalid_request"),
    "cursor with U+2028": ("Last-Event-ID: @RUN@.1\u2028", 400, "bad_cursor"),
    "a folded header": ("X-Request-ID: a\r\n X-Evil: 1", 400, "invalid_request"),
}

# Taken for none, so another one is made.
REQUEST_IDS: dict[str, str | bytes] = {
    "percent-encoded line ends": "a%0d%0aX-Evil:%201",
    "escapes": "a\\r\\nX-Evil: 1",
    "U+2028": "a\u2028b",
    "a lone surrogate's bytes": b"a\xed\xa0\xbdb",
    "129 characters": "r" * 129,
    "a quote": 'a"evil',
    "markup": "<script>evil</script>",
}

QUERIES = {
    "a lone surrogate in the text": ("/chat?text=%ED%A0%BD", 422),
    "no UTF-8 in the text": ("/chat?text=%ff%fe", 422),
    "line ends in the key": ("/chat?text=a&idempotency_key=a%0d%0aX-Evil:1", 422),
    "line ends in the model": ("/chat?text=a&model=a%0d%0adata:x", 422),
    "line ends in include": ("/chat?text=a&include=tools%0aevent:x", 422),
    "line ends in on_disconnect": ("/chat?text=a&on_disconnect=cancel%0a", 422),
    "line ends in the conversation": ("/chat?text=a&conversation_id=a%0d%0aX-Evil:1", 404),
    "NaN as grace": ("/chat?text=a&grace_seconds=nan", 422),
    "the text twice": ("/chat?text=a&text=b", 422),
}

MODEL = {
    "frames, line ends, surrogates": "awkward",
    "a tag that is thought": "think,form=lookalike",
}
UPSTREAM = {
    "its own words for a failure": ("error,after=0", None),
    "a page in place of JSON": ("malformed,kind=html", "upstream_broken"),
    "bytes that are no UTF-8": ("malformed,kind=utf8", "upstream_broken"),
    "a refusal in its words": ("status,code=400", "upstream_rejected"),
    "its key is bad": ("status,code=401", "upstream_auth"),
    "the connection's end": ("eof", "upstream_broken"),
}

CASES = [
    *(_said(name, text) for name, text in TEXTS.items()),
    *(_asked(name, text) for name, text in TEXTS.items()),
    *(
        Case(
            f"field: {name}",
            post("/chat", json.dumps({"text": "@MARK@", **fields}), BOB),
            status,
            code,
            never=(*FORGED, b"@NOBODY@"),
        )
        for name, (fields, status, code) in FIELDS.items()
    ),
    *(
        Case(f"header: {name}", get("/chat?text=@MARK@", ANN, field), status, code, never=FORGED)
        for name, (field, status, code) in HEADERS.items()
    ),
    *(
        Case(
            f"request id: {name}",
            get("/health", line("X-Request-ID", value)),
            200,
            never=(*FORGED, b"evil", b"%0d", b"rrr", b"\xe2\x80\xa8", b"\xed\xa0"),
        )
        for name, value in REQUEST_IDS.items()
    ),
    *(
        Case(
            f"query: {name}",
            get(path.replace("text=a", "text=a@MARK@"), BOB),
            status,
            "not_found" if status == 404 else "invalid_request",
            never=FORGED,
        )
        for name, (path, status) in QUERIES.items()
    ),
    Case(
        "body: a lone surrogate",
        post("/chat", '{"text":"@MARK@\\ud83d"}', BOB),
        422,
        "invalid_request",
    ),
    Case(
        "title: a lone surrogate",
        post("/conversations/@TALK@", '{"title":"\\udc00"}', ANN, method="PATCH"),
        422,
        "invalid_request",
    ),
    Case(
        "path: line ends",
        get("/runs/a%0d%0aX-Evil:%201%0d%0a%0d%0adata:x", BOB),
        404,
        "not_found",
        never=FORGED,
    ),
    *(
        Case(
            f"model says: {name}",
            post("/chat", json.dumps({"text": f"sim:{script} @MARK@"}), BOB),
            200,
            text=expected_text(f"sim:{script}"),
            starts=1,
        )
        for name, script in MODEL.items()
    ),
    *(
        Case(
            f"upstream says: {name}",
            post("/chat", json.dumps({"text": f"sim:{script} @MARK@"}), BOB),
            200,
            error=error or "upstream_unavailable",
            starts=1,
            never=(SECRET.encode(), b"SECRET", b"sk-secret", b"<html", b"Traceback"),
        )
        for name, (script, error) in UPSTREAM.items()
    ),
]
