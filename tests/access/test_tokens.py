"""Tokens: for whom they are taken, until when, and what becomes of them when their key goes."""

import asyncio
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from app.access import jwks, tokens
from app.access.tokens import MAX_TOKEN_CHARS, Tokens
from app.errors import IdentityAway, Unauthorized
from app.settings import SettingsError
from tests.access.identity_provider import (
    LIMITS,
    IdentityProvider,
    Signer,
    checking,
    good_claims,
    identity_provider,
    rsa_key,
    settings_for,
)

pytestmark = pytest.mark.anyio

RSA = Signer("rsa")
EC = Signer("ec", ec.generate_private_key(ec.SECP256R1()))
ED = Signer("ed", ed25519.Ed25519PrivateKey.generate())
OTHER = Signer("rsa", rsa_key(1))  # under the other one's name
NEW = Signer("new", rsa_key(2))
SIGNERS = pytest.mark.parametrize("signer", [RSA, EC, ED], ids=["RS256", "ES256", "EdDSA"])


@pytest.fixture
def provider() -> Iterator[IdentityProvider]:
    with identity_provider(RSA, EC, ED) as provider:
        yield provider


@pytest.fixture
def no_gap(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jwks, "GAP_S", 0.0)
    monkeypatch.setattr(jwks, "RETRY_S", 0.0)


def from_file(home: Path, pem: bytes) -> Tokens:
    file = home / "key.pem"
    file.write_bytes(pem)
    return Tokens(settings_for(jwt_public_key_file=file), LIMITS)


@SIGNERS
async def test_a_token_tells_who_calls_and_until_when(
    provider: IdentityProvider, signer: Signer
) -> None:
    end = good_claims()["exp"]
    async with checking(provider) as checked:
        caller = await checked.check(signer.token(sub="ada@example", exp=end))
        assert checked.still_accepts(caller)
    assert (caller.id, caller.limits, caller.expires_at) == ("token:ada@example", LIMITS, end)
    assert (caller.models, caller.key_id, caller.key_sha256) == (None, None, None)


@SIGNERS
async def test_the_key_of_a_file_checks_tokens_whatever_they_call_their_key(
    tmp_path: Path, signer: Signer
) -> None:
    checked = from_file(tmp_path, signer.pem)
    await checked.run()  # has nothing to do
    assert checked.trouble is None
    for kid in (None, "whatever"):
        caller = await checked.check(signer.token({"kid": kid}))
        assert caller.id == "token:ada"
        assert checked.still_accepts(caller)
    with pytest.raises(Unauthorized):
        await checked.check(OTHER.token())


async def test_a_token_without_a_keys_name_is_taken_where_there_is_one_key(
    provider: IdentityProvider,
) -> None:
    provider.publish(RSA)
    async with checking(provider) as checked:
        assert (await checked.check(RSA.token({"kid": None}))).id == "token:ada"
        with pytest.raises(Unauthorized):
            await checked.check(OTHER.token({"kid": None}))


async def test_of_two_keys_of_one_name_either_is_taken(provider: IdentityProvider) -> None:
    provider.publish(RSA, OTHER)
    async with checking(provider) as checked:
        callers = [await checked.check(signer.token()) for signer in (RSA, OTHER)]
    assert len({caller.signed_by for caller in callers}) == 2


async def test_a_giant_token_is_refused_unread(provider: IdentityProvider) -> None:
    async with checking(provider) as checked:
        token = ED.token(pad="x" * (MAX_TOKEN_CHARS * 3 // 4 - 400))
        token = ED.token(pad="x" * (MAX_TOKEN_CHARS * 3 // 4 - 400 + (8192 - len(token)) * 3 // 4))
        assert MAX_TOKEN_CHARS - 4 <= len(token) <= MAX_TOKEN_CHARS
        assert (await checked.check(token)).id == "token:ada"
        for giant in (ED.token(pad="x" * MAX_TOKEN_CHARS), "x" * 10**7, "." * 10**7):
            with pytest.raises(Unauthorized):
                await checked.check(giant)


async def test_a_token_is_verified_once(
    provider: IdentityProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tokens, "REMEMBERED", 2)
    first, second, third = (ED.token(sub=name) for name in "abc")
    async with checking(provider) as checked:
        caller = await checked.check(first)
        await checked.check(second)
        assert await checked.check(first) is caller
        await checked.check(third)  # the second was used longest ago
        asked: list[str] = []
        decode = jwt.decode

        def counting(token: str, *arguments: Any, **options: Any) -> Any:
            asked.append(token)
            return decode(token, *arguments, **options)

        monkeypatch.setattr(jwt, "decode", counting)
        for token in (first, third, second):
            await checked.check(token)
    assert asked == [second]


async def test_a_token_that_has_ended_is_refused_though_it_was_verified_before(
    provider: IdentityProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = ED.token()
    async with checking(provider) as checked:
        caller = await checked.check(token)
        assert checked.still_accepts(replace(caller, expires_at=caller.expires_at - 1800))
        monkeypatch.setattr(time, "time", lambda: caller.expires_at)
        assert not checked.still_accepts(caller)
        with pytest.raises(Unauthorized):
            await checked.check(token)


@pytest.mark.usefixtures("no_gap")
async def test_a_token_of_a_new_key_is_taken_as_soon_as_the_provider_has_it(
    provider: IdentityProvider,
) -> None:
    async with checking(provider) as checked:
        with pytest.raises(Unauthorized):
            await checked.check(NEW.token())
        provider.publish(RSA, NEW)
        assert (await checked.check(NEW.token())).id == "token:ada"


@pytest.mark.usefixtures("no_gap")
async def test_a_key_that_the_provider_takes_back_ends_its_tokens_and_streams(
    provider: IdentityProvider,
) -> None:
    async with checking(provider) as checked:
        gone, kept = RSA.token(), EC.token()
        callers = [await checked.check(token) for token in (gone, kept)]
        provider.publish(OTHER, EC, NEW)  # another key has its name now
        await checked.check(NEW.token())
        assert [checked.still_accepts(caller) for caller in callers] == [False, True]
        assert await checked.check(kept) is callers[1]
        with pytest.raises(Unauthorized):
            await checked.check(gone)


async def test_strangers_cannot_make_us_ask_the_provider(
    provider: IdentityProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jwks, "GAP_S", 3600.0)  # however slow this machine is
    async with checking(provider) as checked:
        await asyncio.gather(
            *(checked.check(RSA.token({"kid": f"made up {n}"})) for n in range(100)),
            return_exceptions=True,
        )
        assert provider.asked == 1


@pytest.mark.usefixtures("no_gap")
@pytest.mark.parametrize("header", [{"kid": "ec"}, {"kid": None}, {"kid": "new", "alg": "RS512"}])
async def test_only_the_name_of_an_unknown_key_makes_us_ask_the_provider(
    provider: IdentityProvider, header: dict[str, str | None]
) -> None:
    async with checking(provider) as checked:
        with pytest.raises(Unauthorized):
            await checked.check(RSA.token(header))
        assert provider.asked == 1


async def test_while_no_key_was_ever_fetched_nobody_is_told_that_his_token_is_bad(
    provider: IdentityProvider,
) -> None:
    checked = Tokens(settings_for(jwks_url=provider.url), LIMITS)
    assert checked.trouble == "not fetched yet"
    with pytest.raises(IdentityAway) as caught:
        await checked.check(RSA.token())
    assert (caught.value.status, caught.value.code) == (503, "overloaded")
    assert caught.value.retry_after_s == 5
    with pytest.raises(Unauthorized):  # whatever the keys are
        await checked.check("nonsense")


@pytest.mark.usefixtures("no_gap")
@pytest.mark.parametrize("kid", ["rsa", None])
async def test_a_provider_without_a_key_of_any_use_is_away_until_it_has_one(
    provider: IdentityProvider, kid: str | None
) -> None:
    async with checking(provider) as checked:
        provider.publish()
        with pytest.raises(Unauthorized):
            await checked.check("nonsense")
        with pytest.raises(IdentityAway):  # once it was asked
            await checked.check(NEW.token())
        with pytest.raises(IdentityAway):
            await checked.check(RSA.token({"kid": kid}))
        provider.publish(RSA)
        assert (await checked.check(RSA.token())).id == "token:ada"


async def test_keys_that_are_too_old_end_streams_and_are_no_refusal_of_a_token(
    provider: IdentityProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = RSA.token()
    async with checking(provider) as checked:
        caller = await checked.check(token)
        monkeypatch.setattr(jwks, "BELIEVED_S", 0.0)
        assert not checked.still_accepts(caller)
        with pytest.raises(IdentityAway):
            await checked.check(token)


def private_pem() -> bytes:
    return RSA.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


@pytest.mark.parametrize(
    "pem",
    [
        b"",
        b"secret",
        RSA.pem + EC.pem,
        RSA.pem.replace(b"A", b"B", 5),
        private_pem(),
        Signer(None, rsa_key(bits=1024)).pem,
        Signer(None, ec.generate_private_key(ec.SECP384R1())).pem,
    ],
    ids=["empty", "no PEM", "two", "broken", "private", "1024 bits", "P-384"],
)
def test_a_file_without_one_good_public_key_stops_the_start(tmp_path: Path, pem: bytes) -> None:
    with pytest.raises(SettingsError, match="takes one PEM public key: RSA of 2048 bits or more"):
        from_file(tmp_path, pem)


@pytest.mark.parametrize("mode", [0o646, 0o666, 0o602])
def test_a_file_that_everybody_may_write_stops_the_start(tmp_path: Path, mode: int) -> None:
    from_file(tmp_path, RSA.pem)
    file = tmp_path / "key.pem"
    file.chmod(mode)
    with pytest.raises(SettingsError) as caught:
        Tokens(settings_for(jwt_public_key_file=file), LIMITS)
    assert str(caught.value) == (
        f"GATEWAY_JWT_PUBLIC_KEY_FILE={file} can be written by everybody on this machine, who "
        "could make tokens of their own after the next restart: chmod 644 it"
    )
    file.chmod(0o664)
    Tokens(settings_for(jwt_public_key_file=file), LIMITS)


def test_a_file_that_cannot_be_read_stops_the_start(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="cannot be read: No such file or directory"):
        Tokens(settings_for(jwt_public_key_file=tmp_path / "missing"), LIMITS)


@pytest.mark.parametrize("missing", ["jwt_issuer", "jwt_audience", "jwks_url"])
def test_what_tokens_need_is_asked_for(missing: str) -> None:
    said = settings_for(jwks_url="https://identity.example/keys")
    with pytest.raises(SettingsError, match=missing.upper().replace("JWT_", "GATEWAY_JWT_")):
        Tokens(said.model_copy(update={missing: None}), LIMITS)
