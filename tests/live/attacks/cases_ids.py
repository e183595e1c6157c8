"""Cursors and ids: what is none, what is another's, and what only looks like one's own.

Anchors: streams hijacked by their id alone (MCP SDKs), other people's chats (Open WebUI), broken
object level authorization (OWASP API1:2023), path traversal (CWE-22).
"""

import base64

from tests.live.attacks.case import ANN, BOB, Case, get, line, post

# Not a cursor of hers, whatever she has.
CURSORS: dict[str, str | bytes] = {
    "the id alone": "@RUN@",
    "no number": "@RUN@.",
    "below zero": "@RUN@.-1",
    "a sign": "@RUN@.+1",
    "a leading zero": "@RUN@.01",
    "a fraction": "@RUN@.1.5",
    "hexadecimal": "@RUN@.0x1",
    "an exponent": "@RUN@.1e3",
    "a line below": "@RUN@.1_0",
    "Arabic digits": "@RUN@.\u0661",
    "full-width digits": "@RUN@.\uff11",
    "a superscript": "@RUN@.\u00b2",
    "a digit in Latin-1": b"@RUN@.\xb2",
    "spaces within": "@RUN@. 1",
    "beyond 64 bits": "@RUN@." + "9" * 30,
    "sixty thousand digits": "@RUN@." + "9" * 60_000,
    "a list": "@RUN@.1, @RUN@.2",
    "a JSON list": '["@RUN@.1"]',
    "a quote": '"@RUN@.1"',
    "no id": ".1",
    "a short id": "a.1",
    "a path": "../../@RUN@.1",
    "percent-encoded": "@RUN@%2e1",
    "percent-encoded NUL": "@RUN@.1%00",
    "more than there is": "@RUN@.999999",
}
AFTER = {
    "below zero": "-1",
    "a sign": "%2B1",
    "full-width digits": "%EF%BC%91",
    "a space": "1%20",
    "a line end": "1%0a",
    "beyond 64 bits": "9" * 30,
    "a list": "[1]",
    "two": "1,2",
    "a cursor": "@RUN@.1",
    "hexadecimal": "0x1",
}


def _place(value: str | bytes) -> str:
    raw = value.encode() if isinstance(value, str) else value
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


PLACES = {
    "no base64": "%00%21",
    "one character": "a",
    "an empty list": _place("[]"),
    "an object": _place('{"updated_at":1,"id":"a"}'),
    "too few": _place("[1]"),
    "too many": _place('[1,"a",2]'),
    "a text for a number": _place('["1","a"]'),
    "NaN": _place('[NaN,"a"]'),
    "beyond all numbers": _place('[1e400,"a"]'),
    "deep": _place("[" * 20_000),
    "no UTF-8": _place(b'[1,"\xff"]'),
    "a lone surrogate": _place('[1,"\\ud83d"]'),
}
# Its own things are not where these lead.
PATHS = {
    "traversal": "/runs/..%2f..%2fetc%2fpasswd",
    "traversal, raw": "/runs/../../../etc/passwd",
    "traversal, twice encoded": "/runs/%252e%252e%252fhealth",
    "traversal with backslashes": "/runs/..%5c..%5cetc%5cpasswd",
    "traversal out of the docs": "/docs/..%2f..%2fapp%2fmain.py",
    "traversal out of the page": "/..%2f..%2fetc%2fpasswd",
    "traversal out of the page, overlong": "/%c0%ae%c0%ae/etc/passwd",
    "NUL alone": "/runs/%00",
    "NUL behind a file": "/app.js%00.html",
    "NUL behind a run": "/runs/@RUN@%00",
    "NUL behind a conversation": "/conversations/@TALK@%00",
    "a space behind a run": "/runs/@RUN@%20",
    "a line end behind a run": "/runs/@RUN@%0a",
    "a line end behind a conversation": "/conversations/@TALK@%0a",
    "a number behind a run": "/runs/@RUN@.1",
    "an owner behind a run": "/runs/@RUN@:key",
    "a slash behind a run": "/runs/@RUN@/",
    "a pattern": "/conversations/%25",
    "a pattern of Redis": "/runs/*",
    "SQL": "/conversations/'%20OR%20'1'='1",
    "sixty thousand characters": "/runs/" + "x" * 60_000,
    "an emoji": "/conversations/%F0%9F%98%80",
    "no UTF-8": "/conversations/%ff%fe",
    "a list": "/runs/@RUN@,@ENDED@",
    "a matrix": "/runs/@RUN@;x=1",
}
# Every way to name a run or a conversation: method, address, body, headers. All of them are Ann's.
_AT = "Last-Event-ID: @RUN@.1"
_HERS = "/conversations/@CONVERSATION@"
_IN_HERS = '"text":"@MARK@","conversation_id":"@CONVERSATION@"'
HIJACKS: dict[str, tuple[str, str, str | None, tuple[str, ...]]] = {
    "look at a run": ("GET", "/runs/@RUN@", None, ()),
    "read its events": ("GET", "/runs/@RUN@/events", None, ()),
    "read them behind an encoded slash": ("GET", "/runs/@RUN@%2fevents", None, ()),
    "resume it": ("GET", "/runs/@RUN@/events", None, (_AT,)),
    "resume one that ended": ("GET", "/runs/@ENDED@/events?after=1", None, ()),
    "resume with POST /chat": ("POST", "/chat", '{"text":"@MARK@"}', (_AT,)),
    "resume with POST /chat, no body": ("POST", "/chat", "", (_AT,)),
    "resume with GET /chat": ("GET", "/chat?text=@MARK@", None, (_AT,)),
    "resume where regenerated": ("POST", f"{_HERS}/regenerate", "{}", (_AT,)),
    "cancel": ("POST", "/runs/@RUN@/cancel", None, ()),
    "stop": ("DELETE", "/runs/@RUN@", None, ()),
    "read a conversation": ("GET", _HERS, None, ()),
    "rename it": ("PATCH", _HERS, '{"title":"mine"}', ()),
    "delete it": ("DELETE", _HERS, None, ()),
    "delete one at rest": ("DELETE", "/conversations/@TALK@", None, ()),
    "answer it anew": ("POST", "/conversations/@TALK@/regenerate", "{}", ()),
    "go on with it": ("POST", "/chat", f"{{{_IN_HERS}}}", ()),
    "go on with it unread": ("POST", "/runs", f"{{{_IN_HERS}}}", ()),
    "interrupt it": ("POST", "/chat", f'{{{_IN_HERS},"if_busy":"interrupt"}}', ()),
    "branch in it": ("POST", "/chat", f'{{{_IN_HERS},"parent_message_id":"@MESSAGE@"}}', ()),
    "go on by link": ("GET", "/chat?text=@MARK@&conversation_id=@CONVERSATION@", None, ()),
}


def _hijack(method: str, path: str, body: str | None, lines: tuple[str, ...]) -> bytes:
    if body is None:
        return get(path, BOB, *lines, method=method)
    return post(path, body, BOB, *lines, method=method)


CASES = [
    *(
        Case(
            f"cursor: {name}",
            get("/runs/@RUN@/events", ANN, line("Last-Event-ID", value)),
            400,
            "bad_cursor",
        )
        for name, value in CURSORS.items()
    ),
    Case(
        "cursor: of another of one's runs",
        get("/runs/@RUN@/events", ANN, "Last-Event-ID: @ENDED@.1"),
        400,
        "bad_cursor",
    ),
    *(
        Case(f"after: {name}", get(f"/runs/@RUN@/events?after={value}", ANN), 400, "bad_cursor")
        for name, value in AFTER.items()
    ),
    Case(
        "after: twice",
        get("/runs/@RUN@/events?after=1&after=2", ANN),
        422,
        "invalid_request",
    ),
    *(
        Case(f"page: {name}", get(f"/conversations?cursor={value}", ANN), 400, "bad_cursor")
        for name, value in PLACES.items()
    ),
    *(
        Case(
            f"limit: {value}",
            get(f"/conversations?limit={value}", ANN),
            422,
            "invalid_request",
        )
        for value in ("-1", "0", "1e3", "%EF%BC%91", "9" * 30, "1%0a")
    ),
    *(
        Case(f"path: {name}", get(path, ANN), 404, "not_found", never=(b"root:", b"import "))
        for name, path in PATHS.items()
    ),
    *(
        Case(f"path: {name} in other letters", get(path, ANN), 404, "not_found", made=made)
        for name, path, made in (
            ("a run", "/runs/@MADE@", lambda world: world.names["RUN"].swapcase()),
            (
                "a conversation",
                "/conversations/@MADE@",
                lambda world: world.names["TALK"].swapcase(),
            ),
        )
    ),
    *(
        Case(
            f"hijack: {name}",
            _hijack(*way),
            404,
            "not_found",
            never=(b"@RUN@", b"@ENDED@", b"@CONVERSATION@"),
        )
        for name, way in HIJACKS.items()
    ),
    *(
        Case(f"hijack by nobody: {name}", get(path), 401, "unauthorized")
        for name, path in (
            ("a run", "/runs/@RUN@"),
            ("its events", "/runs/@RUN@/events"),
            ("a conversation", "/conversations/@TALK@"),
            ("the list", "/conversations"),
        )
    ),
    Case(
        "hijack: the same idempotency key and body",
        post(
            "/runs",
            '{"text":"sim:tokens,n=3","on_disconnect":"continue"}',
            BOB,
            "Idempotency-Key: anns",
        ),
        201,
        never=(b"@ENDED@", b"@TALK@"),
    ),
    Case(
        "hijack: the same idempotency key, another body",
        post("/runs", '{"text":"sim:tokens,n=1 @MARK@"}', BOB, "Idempotency-Key: anns"),
        422,
        "idempotency_conflict",
    ),
]
