"""Who calls: what all kinds of credentials have in common.

Every request passes here: 10 µs for a key, 19 for a session. What was wrong with a credential, no
answer tells.
"""

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Protocol

from app.access.credentials import Credential, Headers, find_credential
from app.access.failed_tries import FailedTries
from app.access.model import ANONYMOUS, Caller, Limits
from app.access.sessions import KeyLookup, SessionEnded, Sessions, TokenLookup
from app.errors import Unauthorized
from app.settings import Settings

KEY_PREFIX = "gw_"
# Of a guarded gateway, where neither key nor settings say another: contract section 1.
RATE = "120/minute"
MAX_RUNS = 20


class Keys(KeyLookup, Protocol):
    def check(self, key: str) -> Caller:
        """Whose key it is. Raises ``Unauthorized``."""

    def still_accepts(self, caller: Caller) -> bool:
        """Whether the key that ``caller`` came with is good now."""


class Tokens(TokenLookup, Protocol):
    async def check(self, token: str) -> Caller:
        """Whose token it is. Raises ``Unauthorized``, ``IdentityAway``."""


class Gate:
    """``keys``, ``tokens``, ``sessions``: None where none are taken. Where ``settings`` name no
    source of keys the gateway is open: everybody is the same caller, and credentials are not looked
    at, so that an SDK which must send one can send any. ``clock``: Unix seconds."""

    def __init__(
        self,
        settings: Settings,
        *,
        keys: Keys | None = None,
        tokens: Tokens | None = None,
        sessions: Sessions | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._keys = keys
        self._tokens = tokens
        self._sessions = sessions
        self._clock = clock
        self._failed_tries = FailedTries()
        self.is_open = settings.is_open
        self._limits = default_limits(settings)
        self._anonymous = Caller(ANONYMOUS, self._limits)

    async def identify(self, headers: Headers, address: str, *, is_tls: bool) -> Caller:
        """Who sent a request with these headers from ``address``, with all limits that apply.

        Raises ``Unauthorized``, ``RateLimited`` in its place after too many failed tries,
        ``IdentityAway``.
        """
        if self.is_open:
            return self._anonymous
        try:
            credential = find_credential(headers, is_tls=is_tls)
            if credential is not None:
                return self._with_limits(await self._check(credential))
        except SessionEnded:
            raise  # that was no guess
        except Unauthorized:
            self._failed_tries.count(address)
            raise
        raise Unauthorized

    def still_accepts(self, caller: Caller) -> bool:
        """Whether the credential that ``caller`` came with is good now."""
        if self.is_open:
            return True
        if caller.expires_at <= self._clock():
            return False
        if caller.session_id is not None and (
            self._sessions is None or self._sessions.is_signed_out(caller.session_id)
        ):
            return False
        if caller.key_id is not None:
            return self._keys is not None and self._keys.still_accepts(caller)
        return self._tokens is not None and self._tokens.still_accepts(caller)

    async def _check(self, credential: Credential) -> Caller:
        if credential.is_session:
            if self._sessions is None:
                raise Unauthorized
            return self._sessions.check(credential.text)
        if credential.text.startswith(KEY_PREFIX):
            if self._keys is None:
                raise Unauthorized
            return self._keys.check(credential.text)
        if self._tokens is None:
            raise Unauthorized
        return await self._tokens.check(credential.text)

    def _with_limits(self, caller: Caller) -> Caller:
        """What the caller's key says of its own wins."""
        own, ours = caller.limits, self._limits
        if own is ours:
            return caller
        limits = Limits(
            own.rate if own.rate is not None else ours.rate,
            own.max_runs if own.max_runs is not None else ours.max_runs,
            own.tokens_per_day if own.tokens_per_day is not None else ours.tokens_per_day,
        )
        return replace(caller, limits=limits)


def default_limits(settings: Settings) -> Limits:
    """Of every caller that has none of its own. An open gateway has none unless it was told."""
    rate, max_runs = settings.rate_limit, settings.max_runs_per_caller
    if not settings.is_open:
        rate = rate if rate is not None else RATE
        max_runs = max_runs if max_runs is not None else MAX_RUNS
    return Limits(rate, max_runs, settings.tokens_per_day)
