"""What the openai SDK and LangChain raise, put into the gateway's words (contract section 8).

The upstream's own text stays in the log of the process; it never travels further.
"""

import math
import time
from collections.abc import Mapping
from email.utils import parsedate_to_datetime

import openai

from app.errors import (
    UpstreamAuth,
    UpstreamBroken,
    UpstreamError,
    UpstreamRateLimited,
    UpstreamRejected,
    UpstreamUnavailable,
)
from app.llm.upstream import UpstreamFailure

_TRY_AGAIN = frozenset({408, 409, 429})
_OUT_OF_MONEY = "insufficient_quota"
# Words in the ``code`` or ``type`` of an in-stream error object, as OpenAI, vLLM and others use.
_IN_STREAM: tuple[tuple[tuple[str, ...], type[UpstreamError]], ...] = (
    (("rate_limit", "ratelimit", "too_many_requests", _OUT_OF_MONEY), UpstreamRateLimited),
    (("authentication", "api_key", "permission", "unauthorized", "forbidden"), UpstreamAuth),
    (
        ("invalid_request", "badrequest", "context_length", "content_policy", "not_found"),
        UpstreamRejected,
    ),
)


def failure_of(error: Exception, *, head_seen: bool) -> UpstreamFailure:
    """``head_seen``: the upstream had begun to answer this attempt with a 200.

    Then anything that is no error of the SDK comes from an answer of the wrong shape; before it,
    from us: it is raised as it is.
    """
    if isinstance(error, openai.APIStatusError):
        again = error.status_code in _TRY_AGAIN or error.status_code >= 500
        if _OUT_OF_MONEY in (error.code, error.type):
            again = False
        return UpstreamFailure(
            _by_status(error.status_code)(),
            again=again,
            retry_after_s=retry_after(error.response.headers),
            kind=f"HTTP {error.status_code}",
        )
    kind = " from ".join(type(each).__name__ for each in (error, error.__cause__) if each)
    if isinstance(error, openai.APIConnectionError):  # and its child APITimeoutError
        if head_seen:
            return UpstreamFailure(UpstreamBroken(), kind=kind)
        return UpstreamFailure(UpstreamUnavailable(), again=True, kind=kind)
    if isinstance(error, openai.APIError):
        return UpstreamFailure(_in_stream(error)(), kind=kind)
    if not head_seen:
        raise error
    return UpstreamFailure(UpstreamBroken(), kind=kind)


def _by_status(status: int) -> type[UpstreamError]:
    if status in (401, 403):
        return UpstreamAuth
    if status == 429:
        return UpstreamRateLimited
    if status == 408 or status >= 500:
        return UpstreamUnavailable
    return UpstreamRejected


def _in_stream(error: openai.APIError) -> type[UpstreamError]:
    words = [str(word).lower() for word in (error.code, error.type) if word is not None]
    for word in words:
        if word.isdecimal() and 400 <= int(word) <= 599:
            return _by_status(int(word))
    for marks, kind in _IN_STREAM:
        if any(mark in word for mark in marks for word in words):
            return kind
    return UpstreamUnavailable


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds to wait, from ``retry-after-ms`` or ``Retry-After`` (RFC 9110 section 10.2.3)."""
    for name, unit in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        value = headers.get(name, "").strip()
        try:
            seconds = float(value) * unit
        except ValueError:
            continue
        if math.isfinite(seconds):
            return max(0.0, seconds)
    try:
        return max(
            0.0, parsedate_to_datetime(headers.get("retry-after", "")).timestamp() - time.time()
        )
    except (ValueError, OverflowError):
        return None
