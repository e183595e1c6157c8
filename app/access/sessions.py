"""A browser's session: a signed cookie, because ``EventSource`` can send no key.

``<claims>.<signature>``, both base64url; the signature is HMAC-SHA256 over the claims as they are
sent. Not a JWT: PyJWT takes 50 µs to check one, this takes 5, and what is no JWT can never be taken
for a caller's token. Nor the other way round: the key that signs is made out of the secret for this
one purpose.

The cookie says who signed in, not what that caller may do: a key is looked up again at each
request, so that revoking, rotating or changing it is heeded at once.
"""

import hmac
import secrets
import time
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable
from dataclasses import replace
from typing import Protocol

import msgspec
from msgspec import Struct

from app.access.model import Caller
from app.access.signed_out import SESSION_S, SignedOut
from app.errors import IdentityAway, Unauthorized

MAX_CHARS = 4096  # browsers keep no longer cookie (RFC 6265 section 6.1); ours have 1,700 at most
_PURPOSE = b"gateway session cookie, 1"  # another number makes all older cookies void


class SessionEnded(Unauthorized):
    """We signed it, but it is over, signed out, or its key is no more: no try to guess one."""


class KeyLookup(Protocol):
    def caller(self, key_id: str, key_sha256: str) -> Caller:
        """Whose key it is, as the file has it now. Raises ``Unauthorized`` where the file has no
        such key, or it is revoked or expired."""


class TokenLookup(Protocol):
    @property
    def trouble(self) -> str | None:
        """Why tokens cannot be judged just now; None if they can."""

    def still_accepts(self, caller: Caller) -> bool:
        """Whether the token that ``caller`` came with is good now."""


class _Claims(Struct, frozen=True, array_like=True):
    """``ends_at``: Unix seconds. The rest as in ``Caller``."""

    id: str
    owner: str
    ends_at: float
    key_id: str | None
    key_sha256: str | None
    signed_by: str | None


_decode = msgspec.json.Decoder(_Claims).decode
_encode = msgspec.json.Encoder().encode


class Sessions:
    """``keys``, ``tokens``: None where the gateway takes none, and no session that began with one.
    ``clock``: Unix seconds."""

    def __init__(
        self,
        secret: bytes,
        signed_out: SignedOut,
        *,
        keys: KeyLookup | None,
        tokens: TokenLookup | None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._key = hmac.digest(secret, _PURPOSE, "sha256")
        self._signed_out = signed_out
        self._keys = keys
        self._tokens = tokens
        self._clock = clock

    def begin(self, caller: Caller) -> tuple[str, float]:
        """The cookie's value, and when it ends: after 12 hours, or with the caller's credential,
        Unix seconds. That of a session's caller ends when that one does: none prolongs itself."""
        ends_at = min(self._clock() + SESSION_S, caller.expires_at)
        claims = _Claims(
            secrets.token_urlsafe(16),
            caller.id,
            ends_at,
            caller.key_id,
            caller.key_sha256,
            caller.signed_by,
        )
        payload = urlsafe_b64encode(_encode(claims)).rstrip(b"=")
        return f"{payload.decode()}.{self._signature(payload).decode()}", ends_at

    def check(self, value: str) -> Caller:
        """Whose session it is. ``expires_at`` is the session's end or, if sooner, its key's.

        Raises ``Unauthorized`` for what we never signed, ``SessionEnded``, ``IdentityAway``.
        """
        claims = self._claims(value)
        if claims is None:
            raise Unauthorized
        if claims.ends_at <= self._clock() or claims.id in self._signed_out:
            raise SessionEnded
        if claims.key_id is not None and claims.key_sha256 is not None:
            return self._key_holder(claims, claims.key_id, claims.key_sha256)
        return self._token_holder(claims)

    def end(self, value: str) -> None:
        """Signed out: refused from now on. What is no session is let be."""
        claims = self._claims(value)
        if claims is not None and claims.ends_at > self._clock():
            self._signed_out.add(claims.id)

    def is_signed_out(self, session_id: str) -> bool:
        return session_id in self._signed_out

    def _key_holder(self, claims: _Claims, key_id: str, key_sha256: str) -> Caller:
        if self._keys is None:
            raise SessionEnded
        try:
            caller = self._keys.caller(key_id, key_sha256)
        except Unauthorized:
            raise SessionEnded from None
        ends_at = min(claims.ends_at, caller.expires_at)
        return replace(caller, expires_at=ends_at, session_id=claims.id)

    def _token_holder(self, claims: _Claims) -> Caller:
        caller = Caller(
            claims.owner,
            expires_at=claims.ends_at,
            signed_by=claims.signed_by,
            session_id=claims.id,
        )
        if self._tokens is None:
            raise SessionEnded
        if not self._tokens.still_accepts(caller):
            raise SessionEnded if self._tokens.trouble is None else IdentityAway
        return caller

    def _claims(self, value: str) -> _Claims | None:
        """None: we never signed it."""
        if len(value) > MAX_CHARS or not value.isascii():
            return None
        payload, _, signature = value.encode().partition(b".")
        if not hmac.compare_digest(self._signature(payload), signature):
            return None
        return _decode(urlsafe_b64decode(payload + b"=" * (-len(payload) % 4)))

    def _signature(self, payload: bytes) -> bytes:
        return urlsafe_b64encode(hmac.digest(self._key, payload, "sha256")).rstrip(b"=")
