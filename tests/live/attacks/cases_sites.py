"""Other sites' pages, hosts that are not ours, and what only a trusted proxy may say.

Anchors: WHATWG Fetch (CORS), W3C Fetch Metadata, DNS rebinding, OWASP's CORS and CSRF sheets.
"""

from tests.live.attacks.case import ANN, BOB, CLOSE, CROSS, PAGE, Case, get, kept, post
from tests.live.attacks.world import ALLOWED

EVIL = "https://evil.example"
_QUESTION = '{"text":"@MARK@"}'
# No page of ours nor of the one allowed origin, https://allowed.example.
ORIGINS = {
    "another": EVIL,
    "null": "null",
    "empty": "",
    "an asterisk": "*",
    "allowed as a prefix": f"{ALLOWED}.evil.example",
    "allowed as a suffix": "https://evil-allowed.example",
    "allowed as a user": f"{ALLOWED}@evil.example",
    "allowed as a path": f"{EVIL}/{ALLOWED}",
    "allowed with another scheme": "http://allowed.example",
    "allowed with another port": f"{ALLOWED}:444",
    "below the allowed one": "https://a.allowed.example",
    "allowed with a slash": f"{ALLOWED}/",
    "allowed with a dot": f"{ALLOWED}.",
    "a character for the dot": "https://allowed-example",
    "two in a list": f"{ALLOWED}, {EVIL}",
    "two with a space": f"{ALLOWED} {EVIL}",
    "a quote": f"{ALLOWED}`.evil.example",
    "ours as a prefix": "http://@HOST@.evil.example",
    "ours as a user": "http://@HOST@@evil.example",
    "ours with another port": "http://127.0.0.1:1",
    "ours with a path": "http://@HOST@/evil",
    "ours with a query": "http://@HOST@?.evil.example",
    "ours with a fragment": "http://@HOST@#.evil.example",
    "ours twice": "http://@HOST@ http://@HOST@",
    "a loopback name without a port": "http://localhost",
    "an extension of a browser": "chrome-extension://abcdefghijklmnop",
    "a file": "file://",
    "no address": "http://[::1",
}
SITES: dict[str, tuple[str, ...]] = {
    "cross-site": ("Sec-Fetch-Site: cross-site",),
    "cross-site, a picture": ("Sec-Fetch-Site: cross-site", "Sec-Fetch-Mode: no-cors"),
    "cross-site, a navigation": ("Sec-Fetch-Site: cross-site", "Sec-Fetch-Mode: navigate"),
    "another port of this machine": ("Sec-Fetch-Site: same-site", "Sec-Fetch-Mode: cors"),
    "cross-site with a cookie": (
        "Sec-Fetch-Site: cross-site",
        "Cookie: gateway_session=@COOKIE@",
    ),
}
HOSTS: dict[str, tuple[str, int, str]] = {
    "another": ("evil.example", 403, "forbidden"),
    "rebinding": ("127.0.0.1.evil.example", 403, "forbidden"),
    "ours behind a user": ("evil.example@@HOST@", 403, "forbidden"),
    "ours as a user": ("@HOST@@evil.example", 403, "forbidden"),
    "ours with a dot": ("127.0.0.1.", 403, "forbidden"),
    "ours with two ports": ("127.0.0.1:80:80", 403, "forbidden"),
    "ours with a port of letters": ("127.0.0.1:x", 403, "forbidden"),
    "ours with a path": ("127.0.0.1/x", 403, "forbidden"),
    "ours in decimal": ("2130706433", 403, "forbidden"),
    "ours in short": ("127.1", 403, "forbidden"),
    "ours as IPv6": ("[::ffff:127.0.0.1]", 403, "forbidden"),
    "all addresses": ("0.0.0.0", 403, "forbidden"),
    "two in one": ("127.0.0.1, evil.example", 403, "forbidden"),
    "none": ("", 403, "forbidden"),
    "a digit of another script": ("127.0.0.\u0661", 403, "forbidden"),
}
FORWARDED = (
    "X-Forwarded-Host: evil.example",
    "X-Host: evil.example",
    "X-Forwarded-Server: evil.example",
    "X-Forwarded-Port: 1",
    "X-Forwarded-Prefix: /evil",
    "Forwarded: host=evil.example",
)


def _to(host: str, path: str = "/models") -> bytes:
    return get(path, BOB).replace(b"Host: @HOST@", b"Host: " + host.encode())


CASES = [
    *(
        Case(
            f"origin: {name}",
            post("/chat", _QUESTION, BOB, f"Origin: {origin}"),
            403,
            "forbidden",
            never=(b"access-control", b"evil"),
        )
        for name, origin in ORIGINS.items()
    ),
    Case(
        "origin: two headers",
        post("/chat", _QUESTION, BOB, f"Origin: {ALLOWED}", f"Origin: {EVIL}"),
        403,
        "forbidden",
        never=(b"access-control", b"evil"),
    ),
    Case(
        "origin: two headers, ours first",
        post("/chat", _QUESTION, BOB, "Origin: http://@HOST@", f"Origin: {EVIL}"),
        403,
        "forbidden",
        never=(b"access-control", b"evil"),
    ),
    Case(
        "origin: reads by link",
        get("/chat?text=@MARK@", "Cookie: gateway_session=@COOKIE@", f"Origin: {EVIL}"),
        403,
        "forbidden",
        never=(b"access-control",),
    ),
    Case(
        "origin: reads a run",
        get("/runs/@RUN@/events", "Cookie: gateway_session=@COOKIE@", f"Origin: {EVIL}"),
        403,
        "forbidden",
        never=(b"access-control",),
    ),
    Case(
        "origin: signs out",
        get("/session", "Cookie: gateway_session=@COOKIE@", f"Origin: {EVIL}", method="DELETE"),
        403,
        "forbidden",
    ),
    Case(
        "origin: asks first",
        get(
            "/chat",
            f"Origin: {EVIL}",
            "Access-Control-Request-Method: POST",
            "Access-Control-Request-Headers: authorization",
            method="OPTIONS",
        ),
        403,
        "forbidden",
        never=(b"access-control",),
    ),
    Case(
        "origin: asks for an address of its network first",
        get(
            "/chat",
            f"Origin: {EVIL}",
            "Access-Control-Request-Method: GET",
            "Access-Control-Request-Private-Network: true",
            method="OPTIONS",
        ),
        403,
        "forbidden",
        never=(b"access-control",),
    ),
    Case(
        "origin: the page's own files tell nobody else what is in them",
        get("/app.js", f"Origin: {EVIL}"),
        200,
        never=(b"access-control-allow-origin",),
        sets=PAGE | CROSS,
    ),
    *(
        Case(f"site: {name}", get("/chat?text=@MARK@", BOB, *lines), 403, "forbidden")
        for name, lines in SITES.items()
    ),
    Case(
        "site: a link to a question",
        get("/chat?text=@MARK@", BOB, "Sec-Fetch-Site: none", "Sec-Fetch-Mode: navigate"),
        406,
        "not_acceptable",
    ),
    Case(
        "site: a prefetch",
        get("/chat?text=@MARK@", BOB, "Sec-Fetch-Site: same-origin", "Sec-Purpose: prefetch"),
        406,
        "not_acceptable",
    ),
    *(
        Case(f"host: {name}", _to(host), status, code, never=(b"evil",))
        for name, (host, status, code) in HOSTS.items()
    ),
    Case(
        "host: two, ours first",
        get("/models", BOB, "Host: evil.example"),
        400,
        "invalid_request",
        never=(b"evil",),
    ),
    Case(
        "host: two in one connection",
        kept(get("/health")) + _to("evil.example"),
        (200, 403),
        "forbidden",
    ),
    Case(
        "host: another, said to be ours",
        _to("evil.example").replace(
            CLOSE.encode(), CLOSE.encode() + b"\r\nX-Forwarded-Host: @HOST@"
        ),
        403,
        "forbidden",
    ),
    Case("host: another through nginx", _to("evil.example"), 403, "forbidden", nginx=True),
    Case(
        "forwarded: nothing of it comes back",
        post("/runs", '{"text":"sim:tokens,n=1 @MARK@"}', BOB, *FORWARDED),
        201,
        starts=1,
        never=(b"evil",),
    ),
    Case(
        "forwarded: an origin is not ours by it",
        post("/chat", _QUESTION, ANN, "Origin: http://evil.example", *FORWARDED),
        403,
        "forbidden",
        never=(b"evil",),
    ),
    Case(
        "forwarded: nor through nginx",
        post("/chat", _QUESTION, ANN, "Origin: http://evil.example", *FORWARDED),
        403,
        "forbidden",
        never=(b"evil",),
        nginx=True,
    ),
]
