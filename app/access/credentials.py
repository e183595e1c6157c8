"""The one place where a request's credential is found, so that no two parts of the gateway, and no
proxy before it, can read two different ones out of the same request.

1. Two different ones in the headers are refused, never picked from. The same one twice is fine:
   some SDKs send a key as ``Authorization`` and as ``x-api-key``.
2. A header goes before the cookie, which a browser adds unasked.
3. ``__Host-`` names are believed over TLS alone, and over TLS nothing else is: only there do
   browsers keep other hosts from setting such a cookie (RFC 6265bis section 4.1.3).
4. An empty header, or ``Bearer`` without a token, counts as absent: SDKs send it for a key that is
   not set, and pages beside their cookie.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field

from app.errors import Unauthorized

Headers = Iterable[tuple[bytes, bytes]]  # ASGI's: names in lower case

# Longest token that is looked at: those of identity providers with many groups have 8 KiB.
MAX_BYTES = 16 * 1024
_TOKEN = re.compile(rb"[A-Za-z0-9._~+/-]+=*")  # b64token, RFC 6750 section 2.1; keys are some too


@dataclass(frozen=True, slots=True)
class Credential:
    """``text``: a key, a token or, where ``is_session``, the value of a session's cookie. ASCII,
    of whatever length the headers may have."""

    text: str = field(repr=False)
    is_session: bool = False


def find_credential(headers: Headers, *, is_tls: bool) -> Credential | None:
    """None: the request shows none. Raises ``Unauthorized``: for two different ones, for another
    scheme than Bearer, for what can be none."""
    shown = set[bytes]()
    cookies = list[bytes]()
    for name, value in headers:
        if name == b"authorization":
            shown.add(_bearer(value))
        elif name == b"x-api-key":
            shown.add(value.strip(b" \t"))
        elif name == b"cookie":
            cookies.append(value)
    shown.discard(b"")
    if shown:
        text = _only(shown)
        if len(text) > MAX_BYTES or not _TOKEN.fullmatch(text):
            raise Unauthorized
        return Credential(text.decode())
    session = _session(cookies, is_tls=is_tls) if cookies else None
    return None if session is None else Credential(session, is_session=True)


def session_cookie(headers: Headers, *, is_tls: bool) -> str | None:
    """The value of the session's cookie, whatever other credential is there. Raises
    ``Unauthorized`` for two different ones."""
    cookies = [value for name, value in headers if name == b"cookie"]
    return _session(cookies, is_tls=is_tls)


def cookie_name(*, is_tls: bool) -> str:
    return "__Host-gateway_session" if is_tls else "gateway_session"


def _bearer(value: bytes) -> bytes:
    """Empty if there is none. RFC 9110 section 11.4: the scheme in any case, then spaces."""
    scheme, _, token = value.strip(b" \t").partition(b" ")
    if scheme and scheme.lower() != b"bearer":
        raise Unauthorized
    return token.strip(b" ")


def _session(cookies: Iterable[bytes], *, is_tls: bool) -> str | None:
    wanted = cookie_name(is_tls=is_tls).encode()
    values = set[bytes]()
    for line in cookies:
        for pair in line.split(b";"):
            name, _, value = pair.strip(b" \t").partition(b"=")
            if name == wanted:
                values.add(value)
    values.discard(b"")  # how a cookie is taken back
    if not values:
        return None
    value = _only(values)
    if not value.isascii():
        raise Unauthorized
    return value.decode()


def _only(values: set[bytes]) -> bytes:
    if len(values) > 1:
        raise Unauthorized("Two different credentials were shown: show one.")
    return values.pop()
