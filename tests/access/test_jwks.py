"""The provider's keys: which are taken, and from where."""

import json
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519
from jwt.algorithms import OKPAlgorithm, RSAAlgorithm

from app.access import jwks as module
from app.access.jwks import Jwks, PublicKey, read_jwks, refresh_after
from app.settings import SettingsError
from tests.access.identity_provider import Signer, rsa_key

P256 = ec.generate_private_key(ec.SECP256R1())
ED25519 = ed25519.Ed25519PrivateKey.generate()
GOOD = Signer("good")
RSA = Signer("key").jwk
EC = Signer("key", P256).jwk
ED = Signer("key", ED25519).jwk
ED448 = OKPAlgorithm.to_jwk(ed448.Ed448PrivateKey.generate().public_key(), as_dict=True)


def read(*members: object) -> module.KeySet:
    return read_jwks(json.dumps({"keys": members}).encode())


@pytest.mark.parametrize(
    ("jwk", "algorithm"),
    [(RSA, "RS256"), (EC, "ES256"), (ED, "EdDSA")],
    ids=["RSA", "P-256", "Ed25519"],
)
def test_a_key_is_good_for_the_one_algorithm_of_its_type(
    jwk: dict[str, Any], algorithm: str
) -> None:
    others = {"RS256", "ES256", "EdDSA", "HS256", "none", "RS512", "PS256", None} - {algorithm}
    for members in ({}, {"use": "sig", "key_ops": ["verify"], "alg": algorithm}):
        keys = read({**jwk, **members})
        assert len(keys.find("key", algorithm)) == 1
        assert [keys.find("key", other) for other in others] == [[]] * len(others)


@pytest.mark.parametrize(
    "member",
    [
        {"kty": "oct", "kid": "key", "k": "c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0"},
        Signer("key", rsa_key(bits=1024)).jwk,
        Signer("key", ec.generate_private_key(ec.SECP384R1())).jwk,
        {**ED448, "kid": "key"},
        {**EC, "crv": "secp256k1"},
        {**EC, "y": EC["x"]},  # no point of the curve
        {**RSA, "use": "enc"},
        {**RSA, "key_ops": ["wrapKey"]},
        {**RSA, "key_ops": "verify"},
        {**RSA, "alg": "PS256"},
        {**RSA, "alg": "HS256"},
        {**EC, "alg": "RS256"},
        {**RSAAlgorithm.to_jwk(rsa_key(), as_dict=True), "kid": "key", "key_ops": None},  # private
        {**RSA, "d": "AQAB"},
        {**RSA, "n": 5},
        {**RSA, "n": "*"},
        {**RSA, "e": "AQ"},  # 1: everything is its own signature
        {**RSA, "kid": 5},
        {**RSA, "kty": ["RSA"]},
        {"kty": "RSA", "kid": "key"},
        {},
        None,
        "key",
    ],
)
def test_a_key_that_is_of_no_use_is_left_out_and_spoils_no_other(member: object) -> None:
    keys = read(member, GOOD.jwk)
    assert not keys.knows("key")
    assert len(keys.fingerprints) == 1


def test_of_a_thousand_keys_some_are_read() -> None:
    assert not read(*[{}] * module.MAX_KEYS, RSA).fingerprints
    assert read(*[{}] * (module.MAX_KEYS - 1), RSA).fingerprints


NO_JWKS = [
    b"",
    b"<html>",
    b"[]",
    b"{}",
    b'{"keys": {}}',
    b'{"keys": null}',
    b'{"keys": ["\xff"]}',
    b'{"keys": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
]


@pytest.mark.parametrize("body", NO_JWKS, ids=range(len(NO_JWKS)))
def test_what_is_no_jwks_is_refused(body: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011  # json's, msgspec's or ours
        read_jwks(body)


def test_a_token_need_not_name_its_key_only_where_there_is_one() -> None:
    assert len(read(RSA).find(None, "RS256")) == 1
    assert read(RSA, {**EC, "kid": "other"}).find(None, "RS256") == []
    assert read(RSA, {**RSA, "kid": "enc", "use": "enc"}).find(None, "RS256") != []


def test_a_key_without_a_name_is_every_tokens_key() -> None:
    unnamed = {name: value for name, value in RSA.items() if name != "kid"}
    assert len(read(unnamed, EC).find("whatever", "RS256")) == 1
    assert read(unnamed, EC).knows("whatever")
    assert read(RSA).find("whatever", "RS256") == []


def test_two_keys_of_one_name_are_both_tried() -> None:
    other = {**Signer("key", rsa_key(1)).jwk}
    assert len(read(RSA, EC, other).find("key", "RS256")) == 2
    assert len(read(RSA, EC, other).find("key", "ES256")) == 1


def test_a_private_key_is_no_public_one() -> None:
    assert PublicKey.of(rsa_key()) is None
    assert PublicKey.of(rsa_key().public_key()) is not None


@pytest.mark.parametrize(
    "url",
    [
        "http://identity.example/keys",
        "http://127.0.0.1.evil.example/keys",
        "http://localhost@evil.example/keys",
        "https://me:secret@identity.example/keys",
        "ftp://127.0.0.1/keys",
        "file:///etc/keys",
        "https:///keys",
        "https://identity.example:99999/keys",
        "https://identity.example/a b",
        "identity.example/keys",
        "https://",
        "",
    ],
)
def test_other_addresses_than_https_or_loopback_are_refused(url: str) -> None:
    with pytest.raises(SettingsError, match="GATEWAY_JWKS_URL takes an https address"):
        Jwks(url)


@pytest.mark.parametrize(
    "url",
    [
        "https://identity.example/tenant/keys?p=policy",
        "https://identity.example",
        "https://[2001:db8::1]:8443/keys",
        "http://localhost:8080/keys",
        "http://[::1]/keys",
    ],
)
def test_https_and_loopback_addresses_are_taken(url: str) -> None:
    assert Jwks(url).trouble == "not fetched yet"


@pytest.mark.parametrize(
    ("said", "wait_s"),
    [
        (None, 300),
        ("public", 300),
        ("public, max-age=600", 600),
        ('Max-Age="600"', 600),
        ("max-age=0", 60),
        ("max-age=" + "9" * 5000, 3600),
        ("s-maxage=600", 300),
        ("max-age=-1", 300),
        ("max-age=600, no-store", 60),
        ("no-cache", 60),
    ],
)
def test_the_provider_says_how_long_its_keys_are_good_within_bounds(
    said: str | None, wait_s: float
) -> None:
    assert refresh_after({} if said is None else {"Cache-Control": said}) == wait_s
