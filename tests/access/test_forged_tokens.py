"""Forged tokens, and everything that a signed one must not say."""

import base64
import hmac
import json
import math
import time
from collections.abc import Iterator, Mapping
from datetime import timedelta
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from app.access.tokens import LAST_SECOND, LEEWAY_S
from app.errors import Unauthorized
from tests.access.identity_provider import (
    AUDIENCE,
    ISSUER,
    IdentityProvider,
    Signer,
    checking,
    good_claims,
    identity_provider,
    rsa_key,
)

pytestmark = pytest.mark.anyio

RSA = Signer("rsa")
EC = Signer("ec", ec.generate_private_key(ec.SECP256R1()))
ED_KEY = ed25519.Ed25519PrivateKey.generate()
ED = Signer("ed", ED_KEY)
OTHER = Signer("rsa", rsa_key(1))  # somebody else's key under the provider's name for its own


@pytest.fixture(scope="module")
def provider() -> Iterator[IdentityProvider]:
    with identity_provider(RSA, EC, ED) as provider:
        yield provider


def packed(value: object) -> bytes:
    data = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(data).rstrip(b"=")


def forged(header: object, claims: object, signature: bytes = b"") -> str:
    return b".".join([packed(header), packed(claims), packed(signature)]).decode()


def signed(claims: bytes, **header: object) -> str:
    """Of what no library would write."""
    message = packed({"alg": "EdDSA", "kid": ED.kid, **header}) + b"." + packed(claims)
    return (message + b"." + packed(ED_KEY.sign(message))).decode()


def said(claims: Mapping[str, object]) -> bytes:
    """Good ones but for these; None leaves one out, a ``timedelta`` is from now on."""
    both = {**good_claims(), **claims}
    for name, value in both.items():
        if isinstance(value, timedelta):
            both[name] = time.time() + value.total_seconds()
    return json.dumps({name: value for name, value in both.items() if value is not None}).encode()


GOOD: list[dict[str, Any]] = [
    {"aud": [AUDIENCE, "other"]},
    {"sub": "x" * 255},
    {"sub": "Ada Łovelace"},
    {"iat": None},
    {"iat": timedelta(seconds=LEEWAY_S - 5)},
    {"nbf": timedelta(seconds=LEEWAY_S - 5)},
    {"exp": timedelta(seconds=60)},
    {"exp": LAST_SECOND},
]


@pytest.mark.parametrize("claims", GOOD, ids=range(len(GOOD)))
async def test_what_a_token_may_say(provider: IdentityProvider, claims: dict[str, Any]) -> None:
    async with checking(provider) as checked:
        caller = await checked.check(signed(said(claims)))
        assert checked.still_accepts(caller)


BAD: list[dict[str, Any]] = [
    {"iss": "https://evil.example"},
    {"iss": ISSUER + "/"},
    {"iss": [ISSUER]},
    {"iss": None},
    {"aud": "other"},
    {"aud": ["other", AUDIENCE + "2"]},
    {"aud": []},
    {"aud": {AUDIENCE: 1}},
    {"aud": [AUDIENCE, 1]},
    {"aud": None},
    {"exp": None},
    {"exp": -timedelta(seconds=LEEWAY_S + 1)},
    {"exp": timedelta(0)},  # no leeway: the stream of a late token would be cut at once
    {"exp": 0},
    {"exp": -1},
    {"exp": str(LAST_SECOND)},
    {"exp": True},
    {"exp": [9999999999]},
    {"exp": math.nan},
    {"exp": math.inf},
    {"exp": 1e300},
    {"exp": 10**4000},
    {"exp": 4_000_000_000_000},  # milliseconds
    {"nbf": timedelta(seconds=LEEWAY_S + 30)},
    {"nbf": "soon"},
    {"nbf": math.nan},
    {"iat": timedelta(seconds=LEEWAY_S + 30)},
    {"iat": [1]},
    {"sub": ""},
    {"sub": "x" * 256},
    {"sub": 5},
    {"sub": ["ada"]},
    {"sub": {"id": "ada"}},
    {"sub": "ada\n"},
    {"sub": "ada\x00"},
    {"sub": "ada\x7f"},
    {"sub": "ada\u0085"},
    {"sub": "ada\u2028"},
    {"sub": "ada\u202e"},
    {"sub": "\ud800"},
    {"sub": None},
]


@pytest.mark.parametrize("claims", BAD, ids=range(len(BAD)))
async def test_what_a_token_must_not_say(
    provider: IdentityProvider, claims: dict[str, Any]
) -> None:
    async with checking(provider) as checked:
        with pytest.raises(Unauthorized):
            await checked.check(signed(said(claims)))


async def test_claims_that_are_no_object_or_too_deep_are_refused(
    provider: IdentityProvider,
) -> None:
    async with checking(provider) as checked:
        assert (await checked.check(signed(said({})))).id == "token:ada"
        for claims in (b"[]", b"null", b"{", b"", b"\xff", b"[" * 3000, b'{"exp":' + b"9" * 5000):
            with pytest.raises(Unauthorized):
                await checked.check(signed(claims))


def forgeries() -> dict[str, str]:
    claims = good_claims()
    rs256 = {"alg": "RS256", "kid": "rsa"}

    def hs256(secret: bytes, kid: str | None = "rsa", algorithm: str = "HS256") -> str:
        message = packed({"alg": algorithm, "kid": kid}) + b"." + packed(claims)
        return f"{message.decode()}.{packed(hmac.digest(secret, message, 'sha256')).decode()}"

    head, body, signature = RSA.token().split(".")
    _, other_body, _ = RSA.token(sub="root").split(".")
    own = {"jwk": OTHER.jwk}
    return {
        "none": forged({"alg": "none", "kid": "rsa"}, claims),
        "None": forged({"alg": "None"}, claims),
        "no algorithm": forged({"kid": "rsa"}, claims),
        "empty algorithm": forged({"alg": "", "kid": "rsa"}, claims),
        "algorithms": forged({"alg": ["RS256"], "kid": "rsa"}, claims),
        "an object of an algorithm": forged({"alg": {}, "kid": "rsa"}, claims),
        "no signature": f"{head}.{body}.",
        "no dots": head,
        "one dot": f"{head}.{body}",
        "five parts": f"{head}.{body}.{body}.{body}.{signature}",
        "dots": "...",
        "nothing": "",
        "other claims": f"{head}.{other_body}.{signature}",
        "signature of zeros": forged(rs256, claims, bytes(256)),
        "ES256 signature of zeros": forged({"alg": "ES256", "kid": "ec"}, claims, bytes(64)),
        "EdDSA signature of zeros": forged({"alg": "EdDSA", "kid": "ed"}, claims, bytes(64)),
        "public PEM as the secret": hs256(RSA.pem),
        "public PEM without its last line end": hs256(RSA.pem.strip()),
        "public JWK as the secret": hs256(json.dumps(RSA.jwk).encode()),
        "modulus as the secret": hs256(RSA.jwk["n"].encode()),
        "HS256 without a key's name": hs256(RSA.pem, None),
        "HMAC that says RS256": hs256(RSA.pem, algorithm="RS256"),
        "empty secret": hs256(b""),
        "key of somebody else": OTHER.token(),
        "RS256 under an EC key's name": RSA.token({"kid": "ec"}),
        "ES256 under an RSA key's name": EC.token({"kid": "rsa"}),
        "RS512": RSA.token(algorithm="RS512"),
        "PS256": RSA.token(algorithm="PS256"),
        "no name with several keys": RSA.token({"kid": None}),
        "name that is no text": forged({"alg": "RS256", "kid": 1}, claims),
        "name that is a path": OTHER.token({"kid": "../../../../dev/null"}),
        "its own key": OTHER.token(own),
        "its own key without a name": OTHER.token({**own, "kid": None}),
        "its own certificate": OTHER.token({"x5c": ["MIIB"], "x5t": "AA"}),
        "critical": signed(said({}), crit=["exp"], exp=1),
        "critical, as PyJWT takes it": signed(said({}), crit=["b64"], b64=True),
        "not encoded": signed(said({}), crit=["b64"], b64=False),
        "nothing critical": signed(said({}), crit=[]),
        "not ASCII": RSA.token() + "é",
        "lone surrogate": RSA.token() + "\ud800",
        "line end": RSA.token() + "\n",
        "space": " " + RSA.token(),
        "bad base64": RSA.token()[:-1] + "!",
        "header that is a list": forged([], claims, bytes(256)),
        "header that is no JSON": forged(b"{", claims, bytes(256)),
        "header that is deep": forged(b"[" * 4000, claims, bytes(256)),
    }


@pytest.mark.parametrize(("name", "token"), forgeries().items(), ids=forgeries())
async def test_a_forged_token_is_refused(provider: IdentityProvider, name: str, token: str) -> None:
    async with checking(provider) as checked:
        with pytest.raises(Unauthorized) as caught:
            await checked.check(token)
        assert caught.value.detail == Unauthorized.message  # nothing of the token, nor why


async def test_addresses_in_a_token_are_not_followed(provider: IdentityProvider) -> None:
    with identity_provider(Signer("mine", rsa_key(1))) as evil:
        async with checking(provider) as checked:
            for name in ("jku", "x5u", "iss"):
                with pytest.raises(Unauthorized):
                    await checked.check(OTHER.token({name: evil.url, "kid": "mine"}))
        assert evil.asked == 0
