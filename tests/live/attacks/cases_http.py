"""What HTTP lets two programs read in two ways, straight and through nginx; paths and methods that
mean something elsewhere.

Anchors: RFC 9112 section 11, request smuggling (CWE-444), cross-site tracing, the override headers
of frameworks (CVE-2025-29927 was one of these).
"""

from tests.live.attacks.case import ANN, BOB, CLOSE, JSON, PAGE, Case, get, head, post
from tests.live.raw import REFUSED

# How nginx takes what the gateway refuses, where it is not 400: answers, and how many of them are
# of the hidden question. Where that is answered nginx read it as a request of its own, and so did
# the gateway, which gets each with its length; never is it a request to one and not to the other.
NO_HEAD: tuple[int, ...] = ()  # HTTP/0.9 has none
THROUGH_NGINX: dict[str, tuple[int | tuple[int, ...], int]] = {
    "chunked twice": (501, 0),
    "chunked and then not": (501, 0),
    "compressed and chunked": (501, 0),
    "another coding": (501, 0),
    "no coding": (501, 0),
    "a vertical tab before the coding": (501, 0),
    "a head that ends without CR": ((405, 200), 0),
    "HTTP/0.9": (NO_HEAD, 0),
    "HTTP/2 in a line": (505, 0),
    "a size in a line without CR": ((405, 200, 200), 1),
    "an extension in a line without CR": ((405, 200, 200), 1),
    "a length behind the chunks": ((405, 200, 200), 1),
    "another host in the address": ((405, 200), 0),
}


def _smuggled(sent: bytes) -> bytes:
    """One of ``tests.live.raw``, and one that ends the connection."""
    named = {b"HIDDEN": b"@HIDDEN@", b"LENGTH": b"@HIDDEN_LENGTH@", b"SIZE": b"@HIDDEN_SIZE@"}
    named[b"Host: HOST"] = b"Host: @HOST@"
    for there, here in named.items():
        sent = sent.replace(there, here)
    return sent + get("/health")


# Of nothing that a caller would be asked for, whatever somebody in front takes it for.
PATHS: dict[str, tuple[str, int, str | None]] = {
    "two slashes": ("//conversations", 404, "not_found"),
    "a dot": ("/./conversations", 404, "not_found"),
    "an encoded dot": ("/%2e/conversations", 404, "not_found"),
    "up from the docs": ("/docs/../conversations", 404, "not_found"),
    "up from the docs, encoded": ("/docs/%2e%2e/conversations", 404, "not_found"),
    "up from the docs, encoded slash": ("/docs%2f..%2fconversations", 404, "not_found"),
    "up from the docs, a matrix": ("/docs/..;/conversations", 404, "not_found"),
    "a session id": ("/conversations;jsessionid=1", 404, "not_found"),
    "a slash behind it": ("/conversations/", 404, "not_found"),
    "an encoded slash behind it": ("/conversations%2f", 404, "not_found"),
    "a file behind it": ("/conversations/x.css", 401, "unauthorized"),
    "a style sheet behind it": ("/conversations.css", 404, "not_found"),
    "other letters": ("/Conversations", 404, "not_found"),
    "an encoded letter": ("/%63onversations", 401, "unauthorized"),
    "an encoded letter, twice": ("/%2563onversations", 404, "not_found"),
    "the page in the query": ("/conversations?/docs", 401, "unauthorized"),
    "the page in the fragment": ("/conversations#/docs", 401, "unauthorized"),
    "absolute": ("http://@HOST@/conversations", 401, "unauthorized"),
    "absolute, another host": ("http://evil.example/conversations", 400, "invalid_request"),
    "absolute, with a user": ("http://@HOST@@evil.example/", 400, "invalid_request"),
    "an address of the cloud": ("http://169.254.169.254/latest/", 400, "invalid_request"),
    "a file": ("file:///etc/passwd", 400, "invalid_request"),
    "no slash": ("conversations", 400, "invalid_request"),
    "an asterisk": ("*", 404, "not_found"),
    "backslashes": ("/docs\\..\\conversations", 404, "not_found"),
    "NUL": ("/\0conversations", 400, "invalid_request"),
    "a debugger": ("/debug/pprof/", 404, "not_found"),
    "a repository": ("/.git/config", 404, "not_found"),
    "an environment": ("/.env", 404, "not_found"),
    "the keys": ("/keys.json", 404, "not_found"),
    "the data": ("/data/session_secret", 404, "not_found"),
    "the page's tests": ("/node_modules/x.js", 404, "not_found"),
}
METHODS: dict[str, tuple[str, str, int, str | None]] = {
    "TRACE": ("TRACE", "/health", 405, "method_not_allowed"),
    "TRACK": ("TRACK", "/health", 400, "invalid_request"),
    "CONNECT": ("CONNECT", "@HOST@", 405, "method_not_allowed"),
    "CONNECT to elsewhere": ("CONNECT", "evil.example:443", 405, "method_not_allowed"),
    "small letters": ("get", "/health", 400, "invalid_request"),
    "PROPFIND": ("PROPFIND", "/conversations", 405, "method_not_allowed"),
    "OPTIONS": ("OPTIONS", "/chat?text=@MARK@", 405, "method_not_allowed"),
    "PUT": ("PUT", "/runs/@RUN@", 405, "method_not_allowed"),
    "PATCH": ("PATCH", "/runs/@RUN@", 405, "method_not_allowed"),
    "GET that cancels": ("GET", "/runs/@RUN@/cancel", 405, "method_not_allowed"),
    "HEAD that asks": ("HEAD", "/chat?text=@MARK@", 405, "method_not_allowed"),
    "HEAD that reads": ("HEAD", "/runs/@RUN@/events", 405, "method_not_allowed"),
    "a method of a thousand letters": ("A" * 1000, "/health", 400, "invalid_request"),
}
OVERRIDES = (
    "X-HTTP-Method-Override: DELETE",
    "X-HTTP-Method: DELETE",
    "X-Method-Override: DELETE",
)
ELSEWHERE = (
    "X-Original-URL: /conversations",
    "X-Rewrite-URL: /conversations",
    "X-Forwarded-Prefix: /conversations",
    "X-Original-URI: /conversations",
    "X-Middleware-Subrequest: middleware",
)
_STILL = (b'"status":"running"',)
_ALIVE = (b'{"status":"ok"}',)

CASES = [
    *(
        Case(f"smuggled: {name}", _smuggled(sent), 400, "invalid_request")
        for name, sent in REFUSED.items()
    ),
    *(
        Case(
            f"smuggled through nginx: {name}",
            _smuggled(sent),
            status,
            starts=starts,
            nginx=True,
        )
        for name, sent in REFUSED.items()
        for status, starts in (THROUGH_NGINX.get(name, (400, 0)),)
    ),
    *(
        Case(f"path: {name}", get(path), status, code, never=(b"root:", b"items"))
        for name, (path, status, code) in PATHS.items()
    ),
    *(
        Case(f"method: {name}", get(path, BOB, method=method), status, code)
        for name, (method, path, status, code) in METHODS.items()
    ),
    Case("override: GET", get("/runs/@RUN@", ANN, *OVERRIDES), 200, has=_STILL),
    Case(
        "override: POST",
        post("/runs/@RUN@", "{}", ANN, *OVERRIDES),
        405,
        "method_not_allowed",
    ),
    Case(
        "override: in the query",
        get("/runs/@RUN@?_method=DELETE&method=DELETE", ANN),
        200,
        has=_STILL,
    ),
    Case("elsewhere: from a probe", get("/health", *ELSEWHERE), 200, has=_ALIVE),
    Case("elsewhere: from the docs", get("/docs", *ELSEWHERE), 200, never=(b"items",), sets=PAGE),
    Case(
        "a sender that goes silent",
        head("POST", "/chat", JSON, BOB, CLOSE, "Content-Length: 100") + b'\r\n\r\n{"text":"@MARK@',
        408,
        "request_timeout",
    ),
]
