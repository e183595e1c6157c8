"""What a supervisor and other workers have to say to each other about runs."""

import asyncio
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress

from app.errors import ConversationBusy, GatewayError, StoreAway
from app.events.log import EventLog, LogGone, Reader
from app.events.model import Done, RunRecord, Snapshot, Status
from app.runs.neighbours import Household, Neighbours, SharedLog, Talker
from app.runs.request import Request
from app.runs.run import Cancelled, Lost, Run

STOP_AGAIN_S = 1.0  # a worker that was asked to stop a run may not have heard it
# A run that talks in a conversation but is not known of yet is being begun: it reads its history
# (5 s at most) and opens its log (2 s for each look). After that its worker is gone.
BEGINNING_S = 15.0
LOOK_AGAIN_S = 0.05  # whether it is known of by now


class Elsewhere:
    """``runs``: those of this worker, by id."""

    def __init__(self, log: EventLog, neighbours: Neighbours, runs: Mapping[str, Run]) -> None:
        self._log = log
        self._neighbours = neighbours
        self._talks = neighbours.talks
        self._runs = runs
        neighbours.listen(self)
        if isinstance(log, SharedLog):
            log.when_fenced(self._fenced)

    # -- what others say ------------------------------------------------------------------------

    def running(self) -> Iterable[str]:
        return list(self._runs)

    def asked_to_stop(self, run_id: str) -> None:
        if run := self._runs.get(run_id):
            run.stop(Cancelled.BY_REQUEST)

    def read_elsewhere(self, run_id: str, are_there: bool | None) -> None:
        if run := self._runs.get(run_id):
            run.read_elsewhere(are_there)

    def _fenced(self, run_id: str) -> None:
        if run := self._runs.get(run_id):
            run.stop(Lost.FENCED)

    # -- what others are told -------------------------------------------------------------------

    async def stop(self, found: Snapshot, within_s: float) -> Status:
        """Cancel a run that another worker makes; how it stands when it has ended, or when the time
        is over. A run that nobody makes is left as it is."""
        if found.done is not None:
            return found.status
        try:
            reader = self._log.read(found.record.run_id, found.last_seq)
            try:
                async with asyncio.timeout(within_s):
                    return await self._until_ended(found.record.run_id, reader)
            finally:
                reader.close()
        except TimeoutError:
            return "running"
        except LogGone:
            return "cancelled"

    async def _until_ended(self, run_id: str, reader: Reader) -> Status:
        say_at = time.monotonic()
        while True:
            if (silence_s := say_at - time.monotonic()) <= 0:
                silence_s = STOP_AGAIN_S
                say_at = time.monotonic() + silence_s
                with suppress(StoreAway):
                    if not await self._neighbours.stop(run_id):
                        found = await self._log.find(run_id)
                        return found.status if found else "cancelled"
            for entry in await reader.read(silence_s):
                if isinstance(entry.event, Done):
                    return entry.event.status

    async def talker(self, owner: str, conversation_id: str) -> Talker | None:
        """As ``Talks.talker``. Raises ``StoreAway``."""
        return await self._talks.talker(owner, conversation_id)

    async def silence(self, conversation_id: str, owner: str, within_s: float) -> None:
        """Cancel what another worker says in a conversation. Raises ``ConversationBusy`` if it does
        not end, ``StoreAway``."""
        until = time.monotonic() + within_s
        while talker := await self._talks.talker(owner, conversation_id):
            found = await self._log.find(talker.run_id)
            if found is not None:
                if await self.stop(found, max(0.0, until - time.monotonic())) == "running":
                    raise ConversationBusy
                return
            if talker.age_s > BEGINNING_S:
                return
            if time.monotonic() > until:
                raise ConversationBusy
            await asyncio.sleep(LOOK_AGAIN_S)

    async def claim(self, run: Run, request: Request, within_s: float) -> RunRecord:
        """Let the run talk in its conversation: its record is the answer, or that of the run that
        has the same idempotency key and talks there already.

        Raises ``ConversationBusy``, ``StoreAway``, and what the run is stopped with meanwhile.
        """
        record, over = run.record, None
        place = record.owner, record.conversation_id
        while talker := await self._talks.claim(*place, record.run_id, over):
            if isinstance(run.stop_reason, GatewayError):
                raise run.stop_reason
            over = None
            found = await self._log.find(talker.run_id)
            if found is None:
                if talker.age_s > BEGINNING_S:
                    over = talker.run_id
                    continue
                if request.idempotency_key is None and request.if_busy == "reject":
                    raise ConversationBusy
                await asyncio.sleep(LOOK_AGAIN_S)
            elif found.done is not None:
                over = talker.run_id
            elif found.record.idempotency_key == request.idempotency_key is not None:
                return found.record
            elif request.if_busy == "reject" or await self.stop(found, within_s) == "running":
                raise ConversationBusy
        return record

    def leave(self, record: RunRecord) -> None:
        """The run talks no more."""
        self._talks.release(record.owner, record.conversation_id, record.run_id)

    async def announce(self, run_id: str) -> None:
        if run_id not in self._runs:
            await self._neighbours.announce(run_id)

    def reads(self, run_id: str, yes: bool) -> None:
        self._neighbours.reads(run_id, yes)

    def let_go(self) -> None:
        """We go."""
        if isinstance(self._log, SharedLog):
            self._log.let_go()

    def hasten(self) -> None:
        """We are about to go."""
        if isinstance(self._log, SharedLog):
            self._log.hasten()


_: type[Household] = Elsewhere  # the type checker proves the promise is kept
