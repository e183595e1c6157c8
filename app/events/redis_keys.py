"""The names of everything that is kept in Redis, and its clocks.

What belongs to one run has the run's id as its hash tag, so that a script may touch all of it in a
cluster as well (Redis Cluster specification, "Hash tags"). ``prefix``: one for each deployment that
shares a server.
"""

import hashlib
from dataclasses import dataclass

LEASE_S = 20.0  # a writer that has not been heard of for so long is thought dead
RENEW_S = 5.0


@dataclass(frozen=True, slots=True)
class Keys:
    prefix: str

    @property
    def leases(self) -> str:
        """Sorted set: running runs, by when their lease is over."""
        return f"{self.prefix}:leases"

    @property
    def store(self) -> str:
        """String: a mark that is gone where Redis was restarted empty."""
        return f"{self.prefix}:store"

    @property
    def workers(self) -> str:
        """Sorted set: workers, by when they were last heard of."""
        return f"{self.prefix}:{{workers}}:heard"

    @property
    def returned(self) -> str:
        """String: there as long as a worker that was not heard of has just come back."""
        return f"{self.prefix}:{{workers}}:returned"

    def run(self, run_id: str) -> str:
        """Hash: what is known of a run."""
        return f"{self.prefix}:{{{run_id}}}:run"

    def log(self, run_id: str) -> str:
        """Stream: batches of events."""
        return f"{self.prefix}:{{{run_id}}}:log"

    def events(self, run_id: str) -> str:
        """Channel: the same batches, as they are written."""
        return f"{self.prefix}:{{{run_id}}}:events"

    def readers(self, run_id: str) -> str:
        """Sorted set: workers with readers of a run of another worker, by until when."""
        return f"{self.prefix}:{{{run_id}}}:readers"

    def idempotency(self, owner: str, key: str) -> str:
        """String: the run that holds the key."""
        return f"{self.prefix}:{{key:{_digest(owner, key)}}}"

    def talk(self, owner: str, conversation_id: str) -> str:
        """String: the run that talks in the conversation."""
        return f"{self.prefix}:{{talk:{_digest(owner, conversation_id)}}}"

    def slots(self, owner: str) -> str:
        """Sorted set: a caller's running runs, by when their lease is over."""
        return f"{self.prefix}:{{caller:{_digest(owner)}}}:slots"

    def tokens(self, owner: str, day: int) -> str:
        """Hash: what each worker counted for a caller on a day, in days since 1970."""
        return f"{self.prefix}:{{caller:{_digest(owner)}}}:tokens:{day}"

    def requests(self, owner: str) -> str:
        """What the ``limits`` library calls a caller in the names that it makes."""
        return _digest(owner)

    def asked(self, worker: str) -> str:
        """Channel: runs of this worker of which another one wants to know how far they are."""
        return f"{self.prefix}:asked:{worker}"

    def worker(self, worker: str) -> str:
        """Channel: what other workers have to say to this one."""
        return f"{self.prefix}:worker:{worker}"


def _digest(*parts: str) -> str:
    """What callers chose is neither readable in Redis nor able to forge a key."""
    return hashlib.blake2b("\0".join(parts).encode(), digest_size=16).hexdigest()
