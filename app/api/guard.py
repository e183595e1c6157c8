"""Who may ask at all: hosts, other sites' pages, request ids. Pure ASGI: ``BaseHTTPMiddleware``
costs 30 µs for each frame of a stream.

CORS alone only hides an answer; a run would have been started and paid for. So a request that
another site's page made is refused before anything starts:

1. ``Origin`` that is neither ours nor allowed (WHATWG Fetch 3.2). Ours is told by host and port
   alone: behind a proxy that ends TLS the scheme that we see is not the browser's.
2. No allowed ``Origin``, and ``Sec-Fetch-Site`` (W3C Fetch Metadata) says ``cross-site``: an
   ``<img>`` sends no ``Origin``. ``same-site`` counts too unless it is a navigation: another port
   of this machine is same-site, and its page is somebody else's.
3. A ``Host`` that is not ours: DNS rebinding makes a foreign page same-origin with us.
4. Neither ``Origin`` nor ``Sec-Fetch-Site``, and a cookie is the credential: browsers add that
   unasked, and a program that shows one has reason to say where it is. ``GET`` and ``HEAD`` go
   through: browsers older than fetch metadata send neither with them.
"""

import re
import secrets
from collections.abc import Callable, Iterable

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.access.credentials import find_credential
from app.api.problems import problem
from app.errors import Forbidden, Unauthorized
from app.settings import Settings, is_loopback

_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")
LOOPBACK_HOSTS = ("localhost", "127.0.0.1", "[::1]")
_PORTS = {"http": ":80", "https": ":443"}
# With every answer that says nothing else of it (OWASP's REST Security Cheat Sheet). The second one
# concerns no request that CORS decides on (WHATWG Fetch), so allowed origins still read everything.
_ALWAYS = (
    (b"x-content-type-options", b"nosniff"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cache-control", b"no-store"),
)


class RequestId:
    """Takes ``X-Request-ID`` from the request or makes one, and sends it with every answer; and
    ``_ALWAYS``, and what the request's limits said of themselves (``state["quota"]``).

    Writes the bodies of streams (``app.api.stream``): out here nothing of the routing lives as long
    as a stream, and no byte passes through wrappers that only have to do with heads.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        given = Headers(scope=scope).get("x-request-id", "")
        request_id = given if _REQUEST_ID.fullmatch(given) else secrets.token_urlsafe(16)
        state = scope.setdefault("state", {})
        state["request_id"] = request_id

        async def with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                more = [("x-request-id", request_id), *state.get("quota", ())]
                message = {**message, "headers": _with(message.get("headers", ()), more)}
            await send(message)

        try:
            await self._app(dict(scope), receive, with_id)  # what the routing puts in goes with it
        except BaseException:
            if body := state.pop("body", None):
                body.abandon()
            raise
        if body := state.pop("body", None):
            await body(receive, send)


def _with(
    said: Iterable[tuple[bytes, bytes]], more: Iterable[tuple[str, str]]
) -> list[tuple[bytes, bytes]]:
    headers = [*said, *((name.encode(), value.encode("latin-1")) for name, value in more)]
    names = {name for name, _ in headers}
    return headers + [field for field in _ALWAYS if field[0] not in names]


class Guard:
    """``is_public``: tells the paths that any page may load: the chat page's files and the docs."""

    def __init__(
        self, app: ASGIApp, *, settings: Settings, is_public: Callable[[str], bool]
    ) -> None:
        self._app = app
        self._is_public = is_public
        self._origins = settings.cors_origins
        self._is_open = settings.is_open
        self._only_loopback = settings.is_open and not settings.allow_anonymous
        hosts = settings.allowed_hosts
        self._allows_probes = bool(hosts)
        if not hosts and is_loopback(settings.host):
            hosts = (*LOOPBACK_HOSTS, settings.host)
        self._hosts = frozenset(host.lower() for host in hosts)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and (why := self._refusal(scope)):
            response = problem(Forbidden(why), scope["state"]["request_id"])
            await response(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    def _refusal(self, scope: Scope) -> str | None:
        headers = Headers(scope=scope)
        hosts = headers.getlist("host")
        if self._only_loopback and listens_for_strangers(scope):
            return "This open gateway answers on loopback only."
        if self._hosts and not self._is_our_host(hosts) and not self._is_probe(scope["path"]):
            return "This host is not one of this gateway's."
        if self._is_public(scope["path"]):
            return None
        if origins := headers.getlist("origin"):
            ours = len(origins) == 1 and (
                self._is_our_origin(origins[0], hosts) or self._is_allowed(origins[0])
            )
            return None if ours else "Pages of this origin may not use this gateway."
        site = headers.get("sec-fetch-site")
        navigates = headers.get("sec-fetch-mode") == "navigate"
        if site == "cross-site" or (site == "same-site" and not navigates):
            return "Pages of other sites may not use this gateway."
        if site is None and not self._is_open and _writes_by_cookie(scope):
            return "With a session's cookie this takes an Origin."
        return None

    def _is_our_host(self, hosts: list[str]) -> bool:
        names = [re.sub(r":\d+$", "", host.lower()) for host in hosts]
        return len(names) == 1 and (names[0] in self._hosts or "*" in self._hosts)

    def _is_probe(self, path: str) -> bool:
        """Container engines probe by address, whatever names the operator allowed."""
        return self._allows_probes and path in ("/health", "/ready")

    def _is_allowed(self, origin: str) -> bool:
        return "*" in self._origins or origin.lower() in self._origins

    @staticmethod
    def _is_our_origin(origin: str, hosts: list[str]) -> bool:
        scheme, _, address = origin.lower().partition("://")
        default = _PORTS.get(scheme)
        if default is None or len(hosts) != 1:
            return False
        return address.removesuffix(default) == hosts[0].lower().removesuffix(default)


def _writes_by_cookie(scope: Scope) -> bool:
    if scope["method"] in ("GET", "HEAD"):
        return False
    try:
        shown = find_credential(scope["headers"], is_tls=scope["scheme"] == "https")
    except Unauthorized:
        return False  # whoever asks for the caller refuses it, and says why
    return shown is not None and shown.is_session


def listens_for_strangers(scope: Scope) -> bool:
    """The connection came in at an address other than loopback: somebody started a bare uvicorn
    with ``--host``."""
    server = scope.get("server")
    if not server or server[1] is None:
        return False  # a Unix socket
    return bool(re.fullmatch(r"[0-9.]+|[0-9a-f:]*:[0-9a-f:.]*", server[0])) and not is_loopback(
        server[0]
    )
