"""What one run takes of its caller's limits: a slot while it runs, and tokens of the day.

Tokens are counted as far as they are known: a caller with a limit is to meet it while long answers
still run. A timer for each such run, not one for all: the estimates of thousands of runs, made at
once, would hold up every stream.
"""

import asyncio

from app.access.model import Limits
from app.access.quotas import Quotas
from app.events.model import RunRecord
from app.llm.reply import Reply

COUNT_S = 5.0


class Account:
    def __init__(self, quotas: Quotas, record: RunRecord, limits: Limits) -> None:
        self._quotas = quotas
        self._owner, self._run_id = record.owner, record.run_id
        self._limits = limits
        self._reply: Reply | None = None
        self._counted = 0
        self._timer: asyncio.TimerHandle | None = None

    async def open(self) -> None:
        """Take a slot. Raises ``RateLimited``, ``StoreAway``."""
        await self._quotas.begin(self._owner, self._run_id, self._limits)

    def asks(self, reply: Reply) -> None:
        """What it costs counts from now on: at once what is asked, then what is answered."""
        if self._limits.tokens_per_day is not None:
            self._reply = reply
            self._look(reply)

    def close(self) -> None:
        """Count what is left and give the slot back. As often as one likes."""
        if self._timer is not None:
            self._timer.cancel()
        if self._reply is not None:
            self._count(self._reply)
            self._reply = None
        self._quotas.end(self._owner, self._run_id)

    def _look(self, reply: Reply) -> None:
        self._count(reply)
        self._timer = asyncio.get_running_loop().call_later(COUNT_S, self._look, reply)

    def _count(self, reply: Reply) -> None:
        """An estimate that was too high is taken back: the count may be negative."""
        used = reply.usage().total_tokens
        if used != self._counted:
            self._quotas.count(self._owner, self._run_id, used - self._counted)
            self._counted = used
