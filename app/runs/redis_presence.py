"""Which workers Redis hears of: one that it does not may have readers of which nobody knows.

Each worker says every second that it is there. One that is silent for longer is cut off from Redis
(``Link`` needs ``CALL_S`` to know that, and only then lets readers in who wait for it), or frozen,
or dead; after a lease it is thought dead.
"""

from app.events.redis_keys import LEASE_S
from app.events.redis_link import Link, Script
from app.events.redis_scripts import NOW
from app.events.redis_wire import Command

BEAT_S = 1.0
SILENT_S = 1.9  # below CALL_S
RETURN_S = 3.0  # after that who came back has told of its readers

# KEYS: workers, returned. ARGV: worker; milliseconds that are silence, that who returns needs, and
# after which it is dead.
BEAT = Script(f"""{NOW}
local before = redis.call('ZSCORE', KEYS[1], ARGV[1])
if before and now - before > tonumber(ARGV[2]) then
  redis.call('SET', KEYS[2], '1', 'PX', ARGV[3])
end
redis.call('ZADD', KEYS[1], now, ARGV[1])
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now - ARGV[4])
redis.call('PEXPIRE', KEYS[1], ARGV[4])
return 1
""")

# KEYS: workers, returned. ARGV: milliseconds that are silence, after which it is death. Answers how
# many workers cannot tell just now who reads there.
SILENT = Script(f"""{NOW}
return redis.call('ZCOUNT', KEYS[1], now - ARGV[2], now - ARGV[1])
  + redis.call('EXISTS', KEYS[2])
""")


class Presence:
    """``worker``: our id."""

    def __init__(self, link: Link, worker: str) -> None:
        self._keys = (link.keys.workers, link.keys.returned)
        self._worker = worker

    def beat(self) -> Command:
        """We are there. Due every ``BEAT_S``."""
        silent, back, dead = _ms(SILENT_S), _ms(RETURN_S), _ms(LEASE_S)
        return BEAT.command(self._keys, self._worker, silent, back, dead)

    def silent(self) -> Command:
        """Answers how many other workers cannot tell just now who reads there."""
        return SILENT.command(self._keys, _ms(SILENT_S), _ms(LEASE_S))

    def leave(self) -> Command:
        """We are not there any more."""
        return ("ZREM", self._keys[0], self._worker)


def _ms(seconds: float) -> int:
    return round(seconds * 1000)
