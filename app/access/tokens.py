"""Tokens of an identity provider (JWT, RFC 7519): who calls with one, and until when.

What a token says about how to check it is not followed: it names one of the provider's keys, and
the key decides the algorithm. Keys that it brings or points to (``jwk``, ``jku``, ``x5c``, ``x5u``)
are as good as none, and what it calls critical is unknown here (RFC 8725).

Slow to import (0.2 s): only where there are tokens.
"""

import hashlib
import logging
import os
import time
from collections import OrderedDict
from contextlib import suppress
from pathlib import Path
from typing import Any

import jwt
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from jwt.exceptions import InvalidSubjectError
from jwt.types import Options

from app.access.jwks import ALGORITHMS, MIN_RSA_BITS, Jwks, KeySet, PublicKey
from app.access.model import Caller, Limits
from app.errors import IdentityAway, Unauthorized
from app.settings import Settings, SettingsError

logger = logging.getLogger(__name__)

MAX_TOKEN_CHARS = 8192  # as much as servers and proxies take in one header
MAX_SUBJECT_CHARS = 255  # OpenID Connect Core section 2
# For the provider's clock ahead of ours: nbf and iat. Not for exp, which a stream may outlive for a
# while anyway: until the next look at it.
LEEWAY_S = 30
LAST_SECOND = 253_402_300_799  # of the year 9999: later ones are milliseconds, or no date at all
REMEMBERED = 10_000  # tokens: 0.4 KB each, where verifying one takes 100 to 150 µs

_OPTIONS: Options = {"require": ["iss", "aud", "exp", "sub"]}


class Tokens:
    def __init__(self, settings: Settings, limits: Limits) -> None:
        """``limits``: of each subject. Raises ``SettingsError``."""
        if not (settings.jwt_issuer and settings.jwt_audience):
            raise SettingsError(
                "GATEWAY_JWT_ISSUER and GATEWAY_JWT_AUDIENCE are needed with tokens"
            )
        self._issuer = settings.jwt_issuer
        self._audience = settings.jwt_audience
        self._limits = limits
        self._jwks = Jwks(settings.jwks_url) if settings.jwks_url is not None else None
        self._fixed: KeySet | None = None
        if self._jwks is None:
            self._fixed = _read_file(settings.jwt_public_key_file)
        self._verified: OrderedDict[bytes, Caller] = OrderedDict()  # by SHA-256; last used last

    @property
    def trouble(self) -> str | None:
        """Why no token can be checked just now, in a few words; None if they can. Old keys do,
        where newer ones cannot be fetched."""
        return self._jwks.trouble if self._jwks is not None else None

    async def run(self) -> None:
        """Keeps the keys fresh, until cancelled; returns at once where they stand in a file."""
        if self._jwks is not None:
            await self._jwks.run()

    async def check(self, token: str) -> Caller:
        """Who calls with it. Raises ``Unauthorized``; ``IdentityAway`` while there are no keys.

        Where it names a key that is not known yet, the keys are asked for once more, which may take
        ``FETCH_S``.
        """
        if len(token) > MAX_TOKEN_CHARS or not token.isascii():
            raise Unauthorized
        digest = hashlib.sha256(token.encode()).digest()
        caller = self._verified.get(digest)
        if caller is not None and self.still_accepts(caller):
            self._verified.move_to_end(digest)
            return caller
        self._verified.pop(digest, None)
        try:
            caller = await self._verify(token)
        except jwt.PyJWTError as error:
            # Its kind alone: a message could quote the token.
            logger.debug("a token was refused: %s", type(error).__name__)
            raise Unauthorized from None
        self._verified[digest] = caller
        if len(self._verified) > REMEMBERED:
            self._verified.popitem(last=False)
        return caller

    def still_accepts(self, caller: Caller) -> bool:
        """Whether its token has not ended, and the key that signed it is still the provider's."""
        keys = self._keys()
        return (
            keys is not None
            and caller.signed_by in keys.fingerprints
            and time.time() < caller.expires_at
        )

    async def _verify(self, token: str) -> Caller:
        header = jwt.get_unverified_header(token)
        kid, algorithm = header.get("kid"), header.get("alg")
        if "crit" in header or algorithm not in ALGORITHMS:
            raise jwt.InvalidTokenError
        for key in (await self._keys_for(kid)).find(kid, algorithm):
            with suppress(jwt.InvalidSignatureError):
                return self._caller(self._claims(token, key), key)
        raise jwt.InvalidSignatureError

    def _claims(self, token: str, key: PublicKey) -> dict[str, Any]:
        return jwt.decode(
            token,
            key.key,
            algorithms=[key.algorithm],
            issuer=self._issuer,
            audience=self._audience,
            leeway=LEEWAY_S,
            options=_OPTIONS,
        )

    def _caller(self, claims: dict[str, Any], key: PublicKey) -> Caller:
        subject, end = claims["sub"], claims["exp"]
        # Printable: what is not (control characters, halves of a surrogate pair, marks that turn
        # the direction of writing) would go to logs, the store and Redis.
        if not (0 < len(subject) <= MAX_SUBJECT_CHARS and subject.isprintable()):
            raise InvalidSubjectError
        if type(end) not in (int, float) or not time.time() < end <= LAST_SECOND:
            raise jwt.ExpiredSignatureError
        return Caller(
            id=f"token:{subject}",
            limits=self._limits,
            expires_at=float(end),
            signed_by=key.fingerprint,
        )

    def _keys(self) -> KeySet | None:
        return self._jwks.keys if self._jwks is not None else self._fixed

    async def _keys_for(self, kid: str | None) -> KeySet:
        """Raises ``IdentityAway`` where there are none, or none of any use: that is the provider's
        fault, so no caller's try to guess."""
        keys = self._keys()
        if self._jwks and keys is not None and kid is not None and not keys.knows(kid):
            await self._jwks.renew()
            keys = self._keys()
        if keys is None or not keys.fingerprints:
            raise IdentityAway
        return keys


def _read_file(path: Path | None) -> KeySet:
    """Raises ``SettingsError``."""
    name = "GATEWAY_JWT_PUBLIC_KEY_FILE"
    if path is None:
        raise SettingsError(f"GATEWAY_JWKS_URL or {name} is needed with tokens")
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            text = file.read()
    except OSError as error:
        raise SettingsError(f"{name}={path} cannot be read: {error.strerror}") from None
    if mode & 0o002:
        raise SettingsError(
            f"{name}={path} can be written by everybody on this machine, who could make tokens of "
            "their own after the next restart: chmod 644 it"
        )
    try:
        key = PublicKey.of(load_pem_public_key(text))
    except (ValueError, UnsupportedAlgorithm):
        key = None
    if key is None or text.count(b"-----BEGIN ") != 1:
        raise SettingsError(
            f"{name}={path} takes one PEM public key: RSA of {MIN_RSA_BITS} bits or more, P-256 or "
            "Ed25519"
        )
    return KeySet([key])
