"""The keys that tokens are signed with: what of a JWKS (RFC 7517) can be used, and its refresh.

Not PyJWT's ``PyJWKClient``: that blocks the event loop, believes its keys however old they are, and
reads an answer of any size.

A key's type decides its one algorithm, whatever a token says: else an RSA key's public half could
be taken for an HMAC secret (RFC 8725 section 2.1).
"""

import asyncio
import hashlib
import logging
import math
import re
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, NoReturn
from urllib.parse import urlsplit

import aiohttp
import jwt
import msgspec
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from app.settings import SettingsError, is_loopback

logger = logging.getLogger(__name__)

MIN_RSA_BITS = 2048  # RFC 7518 section 3.3
MAX_KEYS = 100  # providers publish two to ten
REFRESH_S = 300.0  # where the provider does not say how long its answer is good
REFRESH_BOUNDS_S = (60.0, 3600.0)  # where it does
# Between two tries that unknown key ids cause. Strangers make such ids up, so it bounds what they
# cost the provider, and it is as long as they can keep a key out that was just rotated in.
GAP_S = 2.0
RETRY_S = 10.0  # after a failure, whoever asks: a provider in trouble is not pressed
FETCH_S = 5.0  # one try, until its last byte
MAX_BODY_BYTES = 1024**2
# A provider that is away for longer may have lost the key to somebody whom it cannot shut out.
BELIEVED_S = 24 * 3600.0

_BY_TYPE = {"RSA": "RS256", "EC": "ES256", "OKP": "EdDSA"}
ALGORITHMS = tuple(_BY_TYPE.values())  # no set: a header may hold what has no hash
_ADDRESS = re.compile(r"https?://([\w.-]+|\[[0-9A-Fa-f:.]+\])(:\d+)?([/?][!-~]*)?", re.ASCII)
_MAX_AGE = re.compile(r"(?:^|[\s,])max-age=\"?(\d{1,9})", re.IGNORECASE)
_STALE_AT_ONCE = re.compile(r"(?:^|[\s,])no-(?:store|cache)\b", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class PublicKey:
    """``fingerprint``: SHA-256 of the key alone, hexadecimal."""

    kid: str | None
    algorithm: str
    key: RSAPublicKey | EllipticCurvePublicKey | Ed25519PublicKey
    fingerprint: str

    @classmethod
    def of(cls, key: object, kid: str | None = None) -> "PublicKey | None":
        """None: no kind of key that tokens are taken from."""
        match key:
            case RSAPublicKey() if key.key_size >= MIN_RSA_BITS:
                algorithm = "RS256"
            case EllipticCurvePublicKey() if isinstance(key.curve, SECP256R1):
                algorithm = "ES256"
            case Ed25519PublicKey():
                algorithm = "EdDSA"
            case _:
                return None
        der = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        return cls(kid, algorithm, key, hashlib.sha256(der).hexdigest())


class KeySet:
    def __init__(self, keys: Sequence[PublicKey]) -> None:
        self._keys = keys
        self.fingerprints = frozenset(key.fingerprint for key in keys)

    def knows(self, kid: str) -> bool:
        return any(key.kid in (kid, None) for key in self._keys)

    def find(self, kid: str | None, algorithm: object) -> list[PublicKey]:
        """Those that a token with this header may be signed with.

        A token need not name its key where there is only one (OpenID Connect Core section 10.1); a
        key without a name is every token's. Two keys may have one name (RFC 7517 section 4.5).
        """
        if kid is None and len(self._keys) != 1:
            return []
        return [
            key
            for key in self._keys
            if key.algorithm == algorithm and (kid is None or key.kid in (kid, None))
        ]


def read_jwks(body: bytes) -> KeySet:
    """A set without the keys that are of no use here. Raises ``ValueError`` for what is no JWKS."""
    try:
        members = msgspec.json.decode(body, type=_Jwks).keys
    except RecursionError:
        raise ValueError("nested too deeply") from None
    keys = (_usable(member) for member in members[:MAX_KEYS])
    return KeySet([key for key in keys if key is not None])


class _Jwks(msgspec.Struct):
    keys: list[Any]


class _Jwk(msgspec.Struct, omit_defaults=True):
    """``d``: of a private key, which everybody knows once it is published."""

    kty: str
    kid: str | None = None
    use: str | None = None
    key_ops: list[str] | None = None
    alg: str | None = None
    crv: str | None = None
    n: str | None = None
    e: str | None = None
    x: str | None = None
    y: str | None = None
    d: Any = None


def _usable(member: object) -> PublicKey | None:
    try:
        jwk = msgspec.convert(member, _Jwk)
        algorithm = _BY_TYPE.get(jwk.kty)
        if (
            algorithm is None
            or jwk.alg not in (algorithm, None)
            or jwk.use not in ("sig", None)
            or (jwk.key_ops is not None and "verify" not in jwk.key_ops)
            or jwk.d is not None
        ):
            return None
        return PublicKey.of(jwt.PyJWK(msgspec.to_builtins(jwk), algorithm).key, jwk.kid)
    except (jwt.PyJWTError, UnsupportedAlgorithm, TypeError, ValueError):
        return None


class Jwks:
    """The keys at a provider's address, fetched by ``run`` alone, so never twice at once.

    ``trouble``: why no token can be checked just now, in a few words; None if they can.
    """

    def __init__(self, url: str) -> None:
        """Raises ``SettingsError``."""
        self._url = url
        host = urlsplit(url).hostname if _is_address(url) else None
        if host is None or not (url.startswith("https:") or is_loopback(host)):
            raise SettingsError(
                "GATEWAY_JWKS_URL takes an https address, or an http one on loopback: whoever "
                "stands between could put keys of his own in the answer"
            )
        self._trust_env = not is_loopback(host)  # its proxy
        self._keys: KeySet | None = None
        self._fetched_at = -math.inf
        self._tried_at = -math.inf
        self._failure: str | None = None
        self._is_fetching = False
        self._wanted = asyncio.Event()
        self._tried = asyncio.Event()  # a new one for each try

    @property
    def keys(self) -> KeySet | None:
        """None: none were ever fetched, or too long ago."""
        return self._keys if time.monotonic() - self._fetched_at < BELIEVED_S else None

    @property
    def trouble(self) -> str | None:
        keys = self.keys
        if keys is None:
            return self._failure or "not fetched yet"
        return None if keys.fingerprints else "the provider has no key that can be used"

    async def renew(self) -> None:
        """Returns after the next try to fetch, at once where the last one began a moment ago."""
        if not self._is_fetching:
            gap_s = GAP_S if self._failure is None else RETRY_S
            if time.monotonic() - self._tried_at < gap_s:
                return
            self._wanted.set()
        tried = self._tried
        with suppress(TimeoutError):  # nobody runs us
            async with asyncio.timeout(2 * FETCH_S):
                await tried.wait()

    async def run(self) -> NoReturn:
        """Fetches now, and then again and again."""
        while True:
            wait_s = await self._try()
            with suppress(TimeoutError):
                async with asyncio.timeout(wait_s):
                    await self._wanted.wait()

    async def _try(self) -> float:
        """Seconds until the next one. A failure leaves the keys as they are."""
        self._wanted.clear()
        self._is_fetching = True
        self._tried_at = time.monotonic()
        try:
            keys, wait_s = await self._fetch()
        except _Failure as failure:
            if str(failure) != self._failure:
                logger.warning("the identity provider's keys cannot be fetched: %s", failure)
            self._failure = str(failure)
            return RETRY_S
        else:
            if self._failure is not None:
                logger.info("the identity provider's keys can be fetched")
            self._failure = None
            self._keys, self._fetched_at = keys, self._tried_at
            return wait_s
        finally:
            self._is_fetching = False
            self._tried.set()
            self._tried = asyncio.Event()

    async def _fetch(self) -> tuple[KeySet, float]:
        try:
            async with (
                asyncio.timeout(FETCH_S),
                aiohttp.ClientSession(trust_env=self._trust_env, auto_decompress=False) as session,
                session.get(
                    self._url,
                    allow_redirects=False,
                    headers={"Accept": "application/json", "Accept-Encoding": "identity"},
                ) as response,
            ):
                if response.status != 200:
                    raise _Failure(f"the provider answers with HTTP {response.status}")
                # Reading a hundred keys takes 2 ms.
                return read_jwks(await _read(response)), refresh_after(response.headers)
        except TimeoutError:
            raise _Failure("the provider is too slow") from None
        except (aiohttp.ClientError, OSError) as error:
            raise _Failure(f"the provider cannot be reached ({type(error).__name__})") from error
        except ValueError:
            raise _Failure("what the provider answers is no JWKS") from None


class _Failure(Exception):
    """The text says what failed, without the address and what came from there."""


async def _read(response: aiohttp.ClientResponse) -> bytes:
    body = bytearray()
    async for piece in response.content.iter_any():
        body += piece
        if len(body) > MAX_BODY_BYTES:
            raise _Failure(f"the provider's answer is larger than {MAX_BODY_BYTES} bytes")
    return bytes(body)


def refresh_after(headers: Mapping[str, str]) -> float:
    """Seconds, by ``Cache-Control`` (RFC 9111 section 5.2.2) within our bounds."""
    said = headers.get("Cache-Control", "")
    age = _MAX_AGE.search(said)
    if _STALE_AT_ONCE.search(said):
        wait_s = 0.0
    elif age is not None:
        wait_s = float(age[1])
    else:
        return REFRESH_S
    return min(max(wait_s, REFRESH_BOUNDS_S[0]), REFRESH_BOUNDS_S[1])


def _is_address(url: str) -> bool:
    try:
        _ = urlsplit(url).port  # raises ValueError for one that is none
    except ValueError:
        return False
    return _ADDRESS.fullmatch(url) is not None
