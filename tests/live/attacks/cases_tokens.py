"""Tokens that nobody's identity provider signed, or not for us, or not for now.

Anchors: RFC 8725 (best practices), the CVEs of ``alg: none``, of key confusion (HS256 with the
public key) and of ``jwk``, ``jku`` and ``kid`` that the token itself brings.
"""

import base64
import hmac
import json
import time
from collections.abc import Mapping

from tests.access.identity_provider import good_claims
from tests.live.attacks.case import Case, Made, get
from tests.live.attacks.world import OURS, THEIRS, World


def _packed(value: object) -> str:
    data = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def _forged(header: Mapping[str, object], signature: bytes = b"") -> str:
    return ".".join([_packed(header), _packed(good_claims()), _packed(signature)])


def _confused(secret: bytes, algorithm: str = "HS256") -> str:
    """The public key, which everybody knows, as if it were the secret of an HMAC."""
    message = f"{_packed({'alg': algorithm, 'kid': OURS.kid})}.{_packed(good_claims())}"
    return f"{message}.{_packed(hmac.digest(secret, message.encode(), 'sha256'))}"


def _theirs(**header: object) -> Made:
    def make(world: World) -> str:
        named = {
            name: value.replace("FOREIGN", world.foreign.url) if isinstance(value, str) else value
            for name, value in header.items()
        }
        return THEIRS.token(named)

    return make


def _changed() -> str:
    """Another subject under a good signature."""
    header, _, signature = OURS.token().split(".")
    return f"{header}.{_packed({**good_claims(), 'sub': 'admin'})}.{signature}"


_NOW = int(time.time())
FORGED: dict[str, Made] = {
    "alg none": _forged({"alg": "none"}),
    "alg None": _forged({"alg": "None", "kid": OURS.kid}),
    "alg nOnE with a signature": _forged({"alg": "nOnE"}, b"x"),
    "alg empty": _forged({"alg": ""}),
    "alg null": _forged({"alg": None}),
    "alg a list": _forged({"alg": ["RS256"]}),
    "no alg": _forged({"kid": OURS.kid}),
    "RS256 without a signature": _forged({"alg": "RS256", "kid": OURS.kid}),
    "HS256 with the public key": _confused(OURS.pem),
    "HS256 with the public key, trimmed": _confused(OURS.pem.strip()),
    "HS256 with the public JWK": _confused(json.dumps(OURS.jwk).encode()),
    "HS256 with nothing": _confused(b""),
    "PS256": OURS.token(algorithm="PS256"),
    "RS512": OURS.token(algorithm="RS512"),
    "another's key under our name": _theirs(),
    "another's key in jwk": _theirs(jwk=THEIRS.jwk),
    "another's key in jku": _theirs(jku="FOREIGN"),
    "another's key in x5u": _theirs(x5u="FOREIGN"),
    "another's key in x5c": _theirs(x5c=[base64.b64encode(THEIRS.pem).decode()]),
    "kid that nobody has": _theirs(kid="other"),
    "kid a file": _theirs(kid="../../../../dev/null"),
    "kid an address": _theirs(kid="FOREIGN"),
    "kid SQL": _theirs(kid="' UNION SELECT 'x"),
    "kid of ten thousand characters": _theirs(kid="k" * 10_000),
    "crit": OURS.token({"crit": ["exp"]}),
    "not compressed, says zip": OURS.token({"crit": ["zip"], "zip": "DEF"}),
    "expired": OURS.token(exp=_NOW - 3600),
    "expired a minute ago": OURS.token(exp=_NOW - 60),
    "no end": OURS.token(exp=None),
    "an end beyond all time": OURS.token(exp=10**30),
    "not yet": OURS.token(nbf=_NOW + 3600),
    "from the future": OURS.token(iat=_NOW + 3600),
    "another audience": OURS.token(aud="other"),
    "no audience": OURS.token(aud=None),
    "ours as a part of the audience": OURS.token(aud="gateway-admin"),
    "another issuer": OURS.token(iss="https://identity.example.evil"),
    "our issuer with a slash": OURS.token(iss="https://identity.example/"),
    "no issuer": OURS.token(iss=None),
    "no subject": OURS.token(sub=None),
    "an empty subject": OURS.token(sub=""),
    "a subject with line ends": OURS.token(sub="a\r\nx"),
    "a subject of a thousand characters": OURS.token(sub="s" * 1000),
    "cut": OURS.token()[:-4],
    "another subject": _changed(),
    "two dots": "..",
    "five parts": "e30.e30.e30.e30.e30",
    "twenty thousand characters": OURS.token(x="y" * 20_000),
    "deep claims": ".".join(["e30", _packed(b"[" * 5000), "e30"]),
}


CASES = [
    *(
        Case(
            f"token: {name}",
            get("/session", "Authorization: Bearer @MADE@"),
            401,
            "unauthorized",
            made=made,
        )
        for name, made in FORGED.items()
    ),
    Case(
        "token: a subject that is a key's name",
        get("/runs/@RUN@", "Authorization: Bearer @MADE@"),
        404,
        "not_found",
        made=lambda world: OURS.token(sub=world.ann.id),
    ),
    Case(
        "token: a subject that is nobody",
        get("/conversations/@TALK@", "Authorization: Bearer @MADE@"),
        404,
        "not_found",
        made=OURS.token(sub="anonymous"),
    ),
]
