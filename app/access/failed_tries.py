"""How often one address may show a credential that is not valid.

Who has a valid one always passes, whatever others behind the same address do: one attacker must not
lock out a whole office or a cloud's exit. So this keeps nobody from guessing, and need not: secrets
have 256 bits. It tells a client that is broken, or hostile, to go slower, and makes one log line
out of a million tries. A request that shows no credential is no try.
"""

import ipaddress
import logging
import math
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from app.errors import RateLimited

logger = logging.getLogger(__name__)

TRIES = 20  # in a window: a person who mistypes, or a few services whose key was just revoked
WINDOW_S = 60.0  # from an address's first failed try on
ADDRESSES = 100_000  # that are remembered, those heard of last. 23 MB
_IPV6_PREFIX = 64  # one household or machine has all of it (RFC 6177)


@dataclass(slots=True)
class _Window:
    ends: float
    tries: int = 0


class FailedTries:
    """``clock`` tells seconds and never goes back."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._windows = OrderedDict[str, _Window]()

    def count(self, address: str) -> None:
        """One more. ``address``: the client's, in whatever form. Raises ``RateLimited``."""
        now = self._clock()
        network = _network(address)
        window = self._windows.pop(network, None)
        if window is None or window.ends <= now:
            window = _Window(now + WINDOW_S)
        self._windows[network] = window
        if len(self._windows) > ADDRESSES:
            self._windows.popitem(last=False)
        window.tries += 1
        if window.tries == TRIES + 1:
            logger.warning("too many credentials from %s are not valid", network)
        if window.tries > TRIES:
            limit = f"{TRIES} failed tries a minute from one address"
            raise RateLimited(limit, math.ceil(window.ends - now))


def _network(address: str) -> str:
    """Whom to count together: an IPv4 address, also one written as IPv6; an IPv6 /64. What is no
    address (a Unix socket has none, a proxy may say anything) is one client."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return "no address"
    if isinstance(parsed, ipaddress.IPv6Address):
        if parsed.ipv4_mapped is None:
            return str(ipaddress.IPv6Network((int(parsed), _IPV6_PREFIX), strict=False))
        parsed = parsed.ipv4_mapped
    return str(parsed)
