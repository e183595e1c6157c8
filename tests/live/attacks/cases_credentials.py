"""Keys and cookies that are none, or not where one is taken from.

Anchors: OWASP API2:2023 (broken authentication), RFC 6750 section 2.3 (no token in an address),
RFC 6265bis section 4.1.3 (``__Host-``).
"""

import base64
import hashlib
import hmac
import json
from urllib.parse import quote

from app.access.model import Caller
from app.access.sessions import Sessions
from app.access.signed_out import MemorySignedOut
from tests.live.access.people import Person
from tests.live.attacks.case import ANN, BOB, CROSS, Case, Made, get, kept, post
from tests.live.attacks.world import OURS, World


def _parts(who: Person) -> tuple[str, str]:
    _, key_id, secret = who.key.split("_", 2)
    return key_id, secret


def _mixed(world: World) -> str:
    return f"gw_{_parts(world.ann)[0]}_{_parts(world.bob)[1]}"


def _flipped(text: str, place: int) -> str:
    """Another letter there."""
    other = "A" if text[place] != "A" else "B"
    return text[:place] + other + text[place + 1 :]


KEYS: dict[str, Made] = {
    "another's id with one's own secret": _mixed,
    "an id that never was": lambda world: f"gw_{'a' * 16}_{_parts(world.bob)[1]}",
    "the id alone": lambda world: f"gw_{_parts(world.ann)[0]}",
    "the id and nothing": lambda world: f"gw_{_parts(world.ann)[0]}_",
    "upper case": lambda world: world.ann.key.upper(),
    "the prefix in upper case": lambda world: world.ann.key.replace("gw_", "GW_"),
    "a character less": lambda world: world.ann.key[:-1],
    "a character more": lambda world: world.ann.key + "A",
    "another last character": lambda world: _flipped(world.ann.key, len(world.ann.key) - 1),
    "padding": lambda world: world.ann.key + "=",
    "percent-encoded NUL": lambda world: world.ann.key + "%00",
    "percent-encoded": lambda world: quote(world.ann.key).replace("_", "%5f"),
    "quotes": lambda world: f'"{world.ann.key}"',
    "two": lambda world: f"{world.ann.key} {world.bob.key}",
    "a list": lambda world: f"{world.ann.key},{world.ann.key}",
    "a full-width letter": lambda world: world.ann.key.replace("g", "\uff47", 1),
    "a Cyrillic letter": lambda world: world.ann.key.replace("w", "\u051d", 1),
    "a letter without width": lambda world: world.ann.key + "\u200b",
    "base64": lambda world: base64.b64encode(world.ann.key.encode()).decode(),
    "its hash": lambda world: hashlib.sha256(world.ann.key.encode()).hexdigest(),
    "a file": "gw_../../keys.json_" + "a" * 43,
    "sixty thousand characters": "gw_" + "a" * 60_000,
}
# A good key, where none is taken from, or in two ways at once.
_PATH = "/session"
PLACES: dict[str, tuple[str, tuple[str, ...]]] = {
    "the query": (f"{_PATH}?api_key=@BOB@&key=@BOB@&access_token=@BOB@&token=@BOB@", ()),
    "Basic": (_PATH, ("Authorization: Basic @MADE@",)),
    "Digest": (_PATH, ('Authorization: Digest username="@BOB@"',)),
    "no scheme": (_PATH, ("Authorization: @BOB@",)),
    "another scheme": (_PATH, ("Authorization: Token @BOB@",)),
    "Bearer with a colon": (_PATH, ("Authorization: Bearer: @BOB@",)),
    "Bearer twice": (_PATH, ("Authorization: Bearer Bearer @BOB@",)),
    "two lines": (_PATH, (BOB, ANN)),
    "two headers": (_PATH, (BOB, "X-API-Key: @ANN@")),
    "a good one and a bad one": (_PATH, (BOB, "X-API-Key: gw_x")),
    "Basic and a good one": (_PATH, ("Authorization: Basic eDp5", "X-API-Key: @BOB@")),
    "lines below": (_PATH, ("X_API_Key: @BOB@",)),
    "the proxy's": (_PATH, ("Proxy-Authorization: Bearer @BOB@",)),
    "a subprotocol": (_PATH, ("Sec-WebSocket-Protocol: bearer, @BOB@",)),
    "forwarded": (_PATH, ("X-Forwarded-Authorization: Bearer @BOB@", "X-Forwarded-User: x")),
    "who a proxy says": (_PATH, ("X-Remote-User: ann", "X-Forwarded-Email: a@b")),
    "a cookie": (_PATH, ("Cookie: gateway_session=@BOB@",)),
    "a cookie of its name": (_PATH, ("Cookie: authorization=Bearer @BOB@; x-api-key=@BOB@",)),
}


def _forged(secret: bytes) -> Made:
    def make(world: World) -> str:
        caller = Caller(world.ann.id, key_id=_parts(world.ann)[0], key_sha256="0" * 64)
        sessions = Sessions(secret, MemorySignedOut(), keys=None, tokens=None)
        return sessions.begin(caller)[0]

    return make


def _other_claims(world: World) -> str:
    """Bob's signature under Ann's name."""
    claims, _, signature = world.names["BOBS_COOKIE"].partition(".")
    said = json.loads(base64.urlsafe_b64decode(claims + "=="))
    said[1] = world.ann.id
    other = base64.urlsafe_b64encode(json.dumps(said).encode()).decode().rstrip("=")
    return f"{other}.{signature}"


def _signed_for_something_else(world: World) -> str:
    claims = world.names["COOKIE"].partition(".")[0]
    mac = hmac.digest(world.secret, claims.encode(), "sha256")
    return f"{claims}.{base64.urlsafe_b64encode(mac).decode().rstrip('=')}"


def _ours(world: World) -> str:
    return world.names["COOKIE"]


COOKIES: dict[str, Made] = {
    "of another secret": _forged(b"x" * 32),
    "of an empty secret": _forged(b""),
    "signed for something else": _signed_for_something_else,
    "another's claims": _other_claims,
    "another's signature": lambda world: (
        _ours(world).partition(".")[0] + "." + world.names["BOBS_COOKIE"].partition(".")[2]
    ),
    "no signature": lambda world: _ours(world).partition(".")[0],
    "an empty signature": lambda world: _ours(world).partition(".")[0] + ".",
    "a dot": ".",
    "truncated": lambda world: _ours(world)[:-1],
    "another last character": lambda world: _flipped(_ours(world), len(_ours(world)) - 1),
    "another first character": lambda world: _flipped(_ours(world), 0),
    "something behind it": lambda world: _ours(world) + ".x",
    "padding": lambda world: _ours(world) + "=",
    "percent-encoded": lambda world: _ours(world).replace(".", "%2e"),
    "quotes": lambda world: f'"{_ours(world)}"',
    "upper case": lambda world: _ours(world).upper(),
    "a key": lambda world: world.ann.key,
    "a token": OURS.token(),
    "a token without a signature": f"{OURS.token().rpartition('.')[0]}.",
    "no ASCII": "\u00e4.\u00f6",
    "eight thousand characters": lambda world: _ours(world).ljust(8000, "A"),
    "sixty thousand characters": "A" * 60_000,
    "a pickle": base64.b64encode(b"cos\nsystem\n(S'id'\ntR.").decode(),
}
_COOKIE = "Cookie: gateway_session=@COOKIE@"
_OWN = "Origin: http://@HOST@"
_ASKS = '{"text":"@MARK@"}'
# A good cookie, where or as none is taken.
SHOWN: dict[str, tuple[str, ...]] = {
    "as a bearer": ("Authorization: Bearer @COOKIE@",),
    "as a key": ("X-API-Key: @COOKIE@",),
    "a __Host- name without TLS": ("Cookie: __Host-gateway_session=@COOKIE@",),
    "a __Secure- name": ("Cookie: __Secure-gateway_session=@COOKIE@",),
    "a __Host- name, TLS pretended": (
        "Cookie: __Host-gateway_session=@COOKIE@",
        "X-Forwarded-Proto: https",
        "X-Forwarded-Ssl: on",
        "Front-End-Https: on",
        "Forwarded: proto=https",
    ),
    "another's beside it": ("Cookie: gateway_session=@COOKIE@; gateway_session=@BOBS_COOKIE@",),
    "another's in another line": (_COOKIE, "Cookie: gateway_session=@BOBS_COOKIE@"),
    "a bad one before it": ("Cookie: gateway_session=x; gateway_session=@COOKIE@",),
    "in other letters": ("Cookie: Gateway_Session=@COOKIE@",),
    "in another header": ("Cookie2: gateway_session=@COOKIE@",),
    "within another": ('Cookie: a="; gateway_session=@COOKIE@"',),
    "behind a bad key": ("Authorization: Bearer gw_x", _COOKIE),
    "behind a scheme that is not taken": ("Authorization: Basic x", _COOKIE),
}
ANONYMOUS_WRITES: dict[str, tuple[str, ...]] = {
    "no Origin": (),
    "an empty Origin": ("Origin:",),
    "Origin null": ("Origin: null",),
    "a Referer in its place": ("Referer: http://@HOST@/",),
    "an empty key beside it": ("Authorization: Bearer",),
    "a page of ours in another header": ("X-Origin: http://@HOST@", "X-Requested-With: fetch"),
}


def _tries(count: int, *lines: str) -> bytes:
    """So many bad keys on one connection; # in ``lines`` is which one it is."""
    tries = [
        get(_PATH, "Authorization: Bearer gw_bad", *(line.replace("#", str(at)) for line in lines))
        for at in range(count)
    ]
    return b"".join([*map(kept, tries[:-1]), tries[-1]])


LIES = (
    "X-Forwarded-For: 10.0.0.#",
    "X-Real-IP: 10.0.0.#",
    "Forwarded: for=10.0.0.#",
    "True-Client-IP: 10.0.0.#",
)
CASES = [
    *(
        Case(
            f"key: {name}",
            get(_PATH, "Authorization: Bearer @MADE@"),
            401,
            "unauthorized",
            made=made,
        )
        for name, made in KEYS.items()
    ),
    *(
        Case(
            f"key in: {name}",
            get(path, *lines),
            401,
            "unauthorized",
            made=lambda world: base64.b64encode(f"{world.bob.key}:".encode()).decode(),
        )
        for name, (path, lines) in PLACES.items()
    ),
    Case(
        "key in: the body",
        post("/chat", '{"text":"@MARK@","api_key":"@BOB@"}'),
        401,
        "unauthorized",
    ),
    *(
        Case(
            f"cookie: {name}",
            get(_PATH, "Cookie: gateway_session=@MADE@"),
            401,
            "unauthorized",
            made=made,
        )
        for name, made in COOKIES.items()
    ),
    *(
        Case(f"cookie shown: {name}", get(_PATH, *lines), 401, "unauthorized")
        for name, lines in SHOWN.items()
    ),
    *(
        Case(
            f"cookie writes: {name}",
            post("/chat", _ASKS, _COOKIE, *lines),
            403,
            "forbidden",
        )
        for name, lines in ANONYMOUS_WRITES.items()
    ),
    Case(
        "cookie: begets no cookie", post(_PATH, "", _COOKIE, _OWN), 401, "unauthorized", sets=CROSS
    ),
    *(
        Case(
            f"20 bad keys, then 429: {name}",
            _tries(22, *LIES),
            (401,) * 20 + (429,) * 2,
            "rate_limited",
            nginx=nginx,
        )
        for name, nginx in (("lies about the address", False), ("lies through nginx", True))
    ),
    Case(
        "a session over TLS: pretended",
        post(_PATH, "", ANN, "X-Forwarded-Proto: https", "Forwarded: proto=https"),
        201,
        sets=frozenset({"set-cookie"}),
        has=(b"set-cookie: gateway_session=",),
        never=(b"; secure", b"__host-"),
    ),
]
