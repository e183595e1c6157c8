"""An identity provider for tests: it signs tokens, and serves its public keys over HTTP.

The server runs in threads of its own, so that tests with and without a loop can use it.
"""

import asyncio
import json
import ssl
import threading
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

from app.access.model import Limits
from app.access.tokens import Tokens
from app.settings import Settings

ISSUER = "https://identity.example"
AUDIENCE = "gateway"
LIMITS = Limits(rate="5/minute", max_runs=2)
BOUND_S = 30.0

PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey


@cache  # one of 2048 bits takes a tenth of a second
def rsa_key(number: int = 0, bits: int = 2048) -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65537, bits)


class Signer:
    """A private key with its name. ``jwk``: its public half as a JWKS has it."""

    def __init__(self, kid: str | None, key: PrivateKey | None = None, **members: object) -> None:
        self.kid = kid
        self.key = key or rsa_key()
        self.public = self.key.public_key()
        self.pem = self.public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        name = {} if kid is None else {"kid": kid}
        match self.public:
            case rsa.RSAPublicKey():
                self.algorithm, jwk = "RS256", RSAAlgorithm.to_jwk(self.public, as_dict=True)
            case ec.EllipticCurvePublicKey():
                self.algorithm, jwk = "ES256", ECAlgorithm.to_jwk(self.public, as_dict=True)
            case ed25519.Ed25519PublicKey():
                self.algorithm, jwk = "EdDSA", OKPAlgorithm.to_jwk(self.public, as_dict=True)
        jwk.pop("key_ops", None)
        self.jwk: dict[str, Any] = {**jwk, **name, **members}

    def token(
        self,
        header: Mapping[str, object] | None = None,
        algorithm: str | None = None,
        **claims: Any,
    ) -> str:
        """A good one for an hour but for what is said: None leaves a claim or a header out."""
        said = {**good_claims(), **claims}
        named = {"kid": self.kid, **(header or {})}
        return jwt.encode(
            {name: value for name, value in said.items() if value is not None},
            self.key,
            algorithm or self.algorithm,
            {name: value for name, value in named.items() if value is not None},
        )


def good_claims() -> dict[str, Any]:
    now = int(time.time())
    return {"iss": ISSUER, "aud": AUDIENCE, "sub": "ada", "iat": now, "exp": now + 3600}


def settings_for(**values: object) -> Settings:
    return Settings.model_validate({"jwt_issuer": ISSUER, "jwt_audience": AUDIENCE, **values})


class IdentityProvider:
    """``asked``: requests so far, with their heads in ``heads``. What the other attributes say is
    answered from the next request on."""

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self.status = 200
        self.body = b'{"keys": []}'
        self.headers: dict[str, str] = {}
        self.heads: list[Mapping[str, str]] = []
        self._changed = threading.Condition()
        self._goes_on = threading.Event()
        self._goes_on.set()
        self._server: ThreadingHTTPServer | None = None
        self._port = 0
        self._tls = tls
        self.start()

    @property
    def url(self) -> str:
        return f"http{'s' if self._tls else ''}://127.0.0.1:{self._port}/keys"

    @property
    def asked(self) -> int:
        return len(self.heads)

    def publish(self, *signers: Signer) -> None:
        """These keys and no others."""
        self.body = json.dumps({"keys": [signer.jwk for signer in signers]}).encode()

    def hang(self) -> None:
        """Requests are taken and not answered until ``go_on``."""
        self._goes_on.clear()

    def go_on(self) -> None:
        self._goes_on.set()

    def wait_asked(self, times: int) -> None:
        """Until it was asked so many times in all."""
        with self._changed:
            assert self._changed.wait_for(lambda: self.asked >= times, BOUND_S), self.asked

    def start(self) -> None:
        """On the same port after a ``stop``."""
        provider = self

        class Handler(BaseHTTPRequestHandler):
            timeout = BOUND_S

            def do_GET(self) -> None:
                provider._answer(self)

            def log_message(self, format: str, *args: object) -> None:  # the base names it so
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", self._port), Handler)
        self._port = self._server.server_port
        if self._tls is not None:
            self._server.socket = self._tls.wrap_socket(self._server.socket, server_side=True)
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    def stop(self) -> None:
        """Nobody listens any more, and what hung is let go."""
        self.go_on()
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    def _answer(self, request: BaseHTTPRequestHandler) -> None:
        with self._changed:
            self.heads.append(dict(request.headers.items()))
            self._changed.notify_all()
        assert self._goes_on.wait(BOUND_S)
        request.send_response(self.status)
        for name, value in {"Content-Length": str(len(self.body)), **self.headers}.items():
            request.send_header(name, value)
        request.end_headers()
        try:
            request.wfile.write(self.body)
        except OSError:  # who asked has left
            request.close_connection = True


@contextmanager
def identity_provider(
    *signers: Signer, tls: ssl.SSLContext | None = None
) -> Iterator[IdentityProvider]:
    provider = IdentityProvider(tls)
    provider.publish(*signers)
    try:
        yield provider
    finally:
        provider.stop()


@asynccontextmanager
async def checking(provider: IdentityProvider) -> AsyncIterator[Tokens]:
    """Once the keys are there."""
    tokens = Tokens(settings_for(jwks_url=provider.url), LIMITS)
    async with asyncio.timeout(BOUND_S), asyncio.TaskGroup() as tasks:
        task = tasks.create_task(tokens.run())
        try:
            while tokens.trouble is not None:  # noqa: ASYNC110  # it only tells when asked
                await asyncio.sleep(0.001)
            yield tokens
        finally:
            task.cancel()
