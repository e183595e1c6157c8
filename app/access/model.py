"""Who calls, and what that caller may have."""

import math
from collections.abc import Set
from dataclasses import dataclass

ANONYMOUS = "anonymous"  # the one caller of an open gateway


@dataclass(frozen=True, slots=True)
class Limits:
    """None: no limit. ``rate``: requests in a window, as the ``limits`` library writes it
    (``120/minute``); ``max_runs``: at once; ``tokens_per_day``: of a UTC day, asked and answered.
    """

    rate: str | None = None
    max_runs: int | None = None
    tokens_per_day: int | None = None


@dataclass(frozen=True, slots=True)
class Caller:
    """``id`` owns runs and conversations: ``anonymous``, ``key:<id>`` or ``token:<subject>``.

    ``models``: names that it may use, None: all. ``expires_at``: Unix seconds after which its
    credential is none any more. ``key_id``, ``key_sha256``: the API key behind it, also behind a
    session, so that revoking or rotating the key ends both. ``signed_by``: the fingerprint of the
    identity provider's key that signed its token, also behind a session. ``session_id``: of the
    browser's session that it came with.
    """

    id: str
    limits: Limits = Limits()
    models: Set[str] | None = None
    expires_at: float = math.inf
    key_id: str | None = None
    key_sha256: str | None = None
    signed_by: str | None = None
    session_id: str | None = None

    def may_use(self, model: str) -> bool:
        return self.models is None or model in self.models
