"""``RateLimit-Policy`` and ``RateLimit``: what a caller may have, and what is left of it.

draft-ietf-httpapi-ratelimit-headers-10, in structured fields (RFC 9651). A deliberate oddity: the
unit "tokens" is not in the draft's registry. Without a unit a reader would take them for requests.
"""

from collections.abc import Sequence

from app.access.requests import Policy, Standing

_UNITS = {"runs": "concurrent-requests", "tokens": "tokens"}  # else "requests", the default
_LARGEST = 999_999_999_999_999  # RFC 9651 section 3.3.1


def headers(standings: Sequence[Standing]) -> list[tuple[str, str]]:
    """Names and values. None at all where there is no limit: the lists must not be empty."""
    if not standings:
        return []
    return [
        ("RateLimit-Policy", ", ".join(_policy(standing.policy) for standing in standings)),
        ("RateLimit", ", ".join(_left(standing) for standing in standings)),
    ]


def _policy(policy: Policy) -> str:
    text = f'"{policy.name}";q={min(policy.quota, _LARGEST)}'
    if policy.name in _UNITS:
        text += f';qu="{_UNITS[policy.name]}"'
    if policy.window_s is not None:
        text += f";w={policy.window_s}"
    return text


def _left(standing: Standing) -> str:
    text = f'"{standing.policy.name}";r={min(standing.remaining, _LARGEST)}'
    if standing.resets_s is not None:
        text += f";t={standing.resets_s}"
    return text
