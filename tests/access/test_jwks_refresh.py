"""When the provider is asked for its keys again, and what becomes of them when it answers badly."""

import asyncio
import gzip
import ipaddress
import logging
import ssl
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from app.access import jwks as module
from app.access.jwks import Jwks
from tests.access.identity_provider import (
    BOUND_S,
    IdentityProvider,
    Signer,
    identity_provider,
    rsa_key,
)

pytestmark = pytest.mark.anyio

OLD, NEW = Signer("old"), Signer("new", rsa_key(1))


@pytest.fixture
def provider() -> Iterator[IdentityProvider]:
    with identity_provider(OLD) as provider:
        yield provider


@pytest.fixture
def no_gap(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "GAP_S", 0.0)
    monkeypatch.setattr(module, "RETRY_S", 0.0)


@asynccontextmanager
async def running(provider: IdentityProvider) -> AsyncIterator[Jwks]:
    jwks = Jwks(provider.url)
    async with asyncio.timeout(BOUND_S), asyncio.TaskGroup() as tasks:
        task = tasks.create_task(jwks.run())
        try:
            yield jwks
        finally:
            task.cancel()


@asynccontextmanager
async def fetching(provider: IdentityProvider) -> AsyncIterator[Jwks]:
    """After the first try."""
    async with running(provider) as jwks:
        await jwks.renew()
        yield jwks


def known(jwks: Jwks) -> list[str]:
    return [kid for kid in ("old", "new") if jwks.keys is not None and jwks.keys.knows(kid)]


async def test_keys_are_fetched_at_the_start(provider: IdentityProvider) -> None:
    async with fetching(provider) as jwks:
        assert (known(jwks), jwks.trouble, provider.asked) == (["old"], None, 1)


async def test_keys_are_fetched_again_when_their_time_is_over(
    provider: IdentityProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "REFRESH_S", 0.01)
    async with fetching(provider) as jwks:
        await asyncio.to_thread(provider.wait_asked, 2)
        provider.publish(NEW)
        await asyncio.to_thread(provider.wait_asked, provider.asked + 2)
        assert known(jwks) == ["new"]


@pytest.mark.usefixtures("no_gap")
async def test_they_are_fetched_at_once_when_somebody_asks(provider: IdentityProvider) -> None:
    async with fetching(provider) as jwks:
        provider.publish(OLD, NEW)
        await jwks.renew()
        assert (known(jwks), provider.asked) == (["old", "new"], 2)


@pytest.mark.parametrize(("status", "gap"), [(200, "GAP_S"), (500, "RETRY_S")])
async def test_however_many_ask_the_provider_is_asked_once_in_a_while(
    provider: IdentityProvider, monkeypatch: pytest.MonkeyPatch, status: int, gap: str
) -> None:
    assert (module.GAP_S, module.RETRY_S) == (2, 10)
    for each in ("GAP_S", "RETRY_S"):  # however slow this machine is
        monkeypatch.setattr(module, each, 3600.0 if each == gap else 0.0)
    provider.status = status
    async with fetching(provider) as jwks:
        before = known(jwks)
        provider.publish(NEW)
        await asyncio.gather(*(jwks.renew() for _ in range(100)))
        assert (known(jwks), provider.asked) == (before, 1)


async def test_all_who_ask_meanwhile_wait_for_the_same_answer(provider: IdentityProvider) -> None:
    provider.hang()
    async with running(provider) as jwks:
        await asyncio.to_thread(provider.wait_asked, 1)
        readers = [asyncio.create_task(jwks.renew()) for _ in range(100)]
        await asyncio.sleep(0)
        readers.pop().cancel()  # a client that leaves takes nothing from the others
        assert known(jwks) == []
        provider.go_on()
        await asyncio.gather(*readers)
        assert (known(jwks), provider.asked) == (["old"], 1)


async def test_without_a_loop_that_fetches_nobody_waits_for_ever(
    provider: IdentityProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "FETCH_S", 0.01)
    async with asyncio.timeout(BOUND_S):
        await Jwks(provider.url).renew()
    assert provider.asked == 0


def fails(provider: IdentityProvider) -> None:
    provider.status = 500


def redirects(provider: IdentityProvider) -> None:
    provider.status = 302


def sends_garbage(provider: IdentityProvider) -> None:
    provider.body = b"<html>"


def sends_too_much(provider: IdentityProvider) -> None:
    provider.body += b" " * module.MAX_BODY_BYTES


def sends_a_part(provider: IdentityProvider) -> None:
    provider.headers["Content-Length"] = str(len(provider.body) + 1)


def packs(provider: IdentityProvider) -> None:
    provider.body = gzip.compress(provider.body)
    provider.headers["Content-Encoding"] = "gzip"


def is_away(provider: IdentityProvider) -> None:
    provider.stop()


def hangs(provider: IdentityProvider) -> None:
    provider.hang()


BAD = [
    (fails, "the provider answers with HTTP 500"),
    (redirects, "the provider answers with HTTP 302"),
    (sends_garbage, "what the provider answers is no JWKS"),
    (sends_too_much, "the provider's answer is larger than 1048576 bytes"),
    (sends_a_part, "the provider cannot be reached (ClientPayloadError)"),
    (packs, "what the provider answers is no JWKS"),
    (is_away, "the provider cannot be reached (ClientConnectorError)"),
    (hangs, "the provider is too slow"),
]


@pytest.mark.usefixtures("no_gap")
@pytest.mark.parametrize(("breaks", "trouble"), BAD)
async def test_a_provider_that_fails_at_the_start_is_asked_until_it_answers(
    provider: IdentityProvider,
    monkeypatch: pytest.MonkeyPatch,
    breaks: Callable[[IdentityProvider], None],
    trouble: str,
) -> None:
    if breaks is hangs:
        monkeypatch.setattr(module, "FETCH_S", 0.3)
    with identity_provider(NEW) as elsewhere:
        provider.headers["Location"] = elsewhere.url
        breaks(provider)
        async with fetching(provider) as jwks:
            assert (known(jwks), jwks.trouble) == ([], trouble)
            monkeypatch.setattr(module, "FETCH_S", BOUND_S)
            repair(provider)
            while jwks.trouble is not None:  # noqa: ASYNC110  # it only tells when asked
                await asyncio.sleep(0.001)
            assert known(jwks) == ["old"]
        assert elsewhere.asked == 0


@pytest.mark.usefixtures("no_gap")
@pytest.mark.parametrize(("breaks", "trouble"), BAD)
async def test_a_provider_that_fails_later_takes_no_keys_away_and_is_logged_once(
    provider: IdentityProvider,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    breaks: Callable[[IdentityProvider], None],
    trouble: str,
) -> None:
    caplog.set_level(logging.INFO, module.__name__)
    async with fetching(provider) as jwks:
        if breaks is hangs:
            monkeypatch.setattr(module, "FETCH_S", 0.3)
        breaks(provider)
        for _ in range(3):
            await jwks.renew()
            assert (known(jwks), jwks.trouble) == (["old"], None)
        assert caplog.messages == [f"the identity provider's keys cannot be fetched: {trouble}"]
        monkeypatch.setattr(module, "FETCH_S", BOUND_S)
        repair(provider)
        provider.publish(NEW)
        while known(jwks) != ["new"]:
            await jwks.renew()
        await jwks.renew()
    assert caplog.messages[1:] == ["the identity provider's keys can be fetched"]


def repair(provider: IdentityProvider) -> None:
    provider.status = 200
    provider.publish(OLD)
    provider.headers.clear()
    provider.stop()
    provider.start()


@pytest.mark.usefixtures("no_gap")
async def test_keys_that_could_not_be_fetched_for_a_day_are_not_believed(
    provider: IdentityProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with fetching(provider) as jwks:
        fails(provider)
        await jwks.renew()
        assert known(jwks) == ["old"]
        monkeypatch.setattr(module, "BELIEVED_S", 0.0)
        assert known(jwks) == []
        assert jwks.trouble == "the provider answers with HTTP 500"


@pytest.mark.usefixtures("no_gap")
async def test_a_provider_that_takes_all_keys_back_is_believed(provider: IdentityProvider) -> None:
    async with fetching(provider) as jwks:
        provider.publish()
        await jwks.renew()
        assert known(jwks) == []
        assert jwks.trouble == "the provider has no key that can be used"


def self_signed(home: Path) -> ssl.SSLContext:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder(name, name, key.public_key(), serial_number=1)
    builder = builder.not_valid_before(now).not_valid_after(now + timedelta(days=1))
    address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
    builder = builder.add_extension(x509.SubjectAlternativeName([address]), critical=False)
    file = home / "tls.pem"
    file.write_bytes(
        builder.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM)
        + key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file)
    return context


async def test_a_provider_without_a_certificate_that_others_trust_is_not_believed(
    tmp_path: Path,
) -> None:
    with identity_provider(OLD, tls=self_signed(tmp_path)) as provider:
        async with fetching(provider) as jwks:
            assert known(jwks) == []
            assert jwks.trouble is not None
            assert "ClientConnectorCertificateError" in jwks.trouble
        assert provider.asked == 0


async def test_the_provider_is_asked_for_plain_json(provider: IdentityProvider) -> None:
    async with fetching(provider):
        head = provider.heads[0]
    assert (head["Accept"], head["Accept-Encoding"]) == ("application/json", "identity")


async def test_a_loopback_provider_is_not_asked_through_a_proxy(
    provider: IdentityProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    async with fetching(provider) as jwks:
        assert known(jwks) == ["old"]
