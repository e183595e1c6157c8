"""Asks a question and reads the answer to its end, as a good client does.

Every event has an id, so it resumes behind the last one; before the first id it repeats the POST
with the same key. It comes back after a pause that grows, with jitter, and no sooner than it is
told. It takes silence for a dead connection. And it loses its connection by itself now and then.
"""

import asyncio
import json
import math
import random
import secrets
import time

import aiohttp

from app.wire.parse import Event, EventParser
from tests.chaos.records import Heard, Record

HEARTBEAT_S = 2.0  # of the gateways here
SILENCE_S = 3 * HEARTBEAT_S
HEAD_S = 8.0  # for the head of an answer: whoever took the question may be stopped
CUT_EVERY_S = 8.0  # on average
BACK_S = (0.1, 2.0)  # the first pause and the longest, with full jitter
LAST_S = 20.0  # from `done` to the end of the body
AGAIN = (409, 429, 502, 503, 504)


class Reader:
    """``record`` fills while it reads. One that did not ask but follows has a run id in it."""

    def __init__(self, http: aiohttp.ClientSession, record: Record, chance: random.Random) -> None:
        self.record = record
        self.is_known = asyncio.Event()  # the run, or that it will never be
        self._http = http
        self._chance = chance
        self._key = secrets.token_hex(16)
        self._body = record.question.body(record.conversation_id)
        # Who asks is a reader from acceptance on; who follows is away until it is there.
        self._last_byte = time.monotonic() if record.run_id else None
        leaves_s = record.question.leaves_after_s
        self._leaves_at = math.inf if leaves_s is None else time.monotonic() + leaves_s

    async def read(self) -> None:
        """Until the ending, or until no more can be had."""
        failures = 0
        try:
            while True:
                before = len(self.record.heard)
                told_s = 0.0
                try:
                    told_s = await self._once()
                except (aiohttp.ClientError, TimeoutError, OSError) as error:
                    self.record.cuts += 1
                    self.record.note(repr(error))
                self._leave_in_time()
                if self.record.is_over:
                    return
                failures = 0 if len(self.record.heard) > before else failures + 1
                pause_s = min(BACK_S[1], BACK_S[0] * 2 ** min(failures, 10))
                await asyncio.sleep(told_s + self._chance.uniform(0, pause_s))
        finally:
            self.is_known.set()

    async def _once(self) -> float:
        """One request; after how many seconds another is worth it."""
        async with asyncio.timeout(HEAD_S):
            response = await self._send()
        try:
            if response.status == 200:
                self._is_connected()
                await self._listen(response)
                return 0.0
            return await self._refused(response)
        finally:
            response.close()

    async def _send(self) -> aiohttp.ClientResponse:
        record = self.record
        if not record.run_id:
            headers = {"idempotency-key": self._key}
            return await self._http.post("/chat", json=self._body, headers=headers)
        headers = {}
        if record.heard:
            headers["last-event-id"] = f"{record.run_id}.{record.heard[-1].seq}"
            record.resumes += 1
        return await self._http.get(f"/runs/{record.run_id}/events", headers=headers)

    async def _refused(self, response: aiohttp.ClientResponse) -> float:
        record, status = self.record, response.status
        record.refused[status] += 1
        record.note(f"answered {status}")
        if status in AGAIN:
            return float(response.headers.get("retry-after", 0))
        if status == 404 and record.run_id:
            record.gone_at = time.time()
        elif status == 404 and record.conversation_id is not None:
            record.lost_conversation = True
        else:
            async with asyncio.timeout(HEAD_S):
                said = await response.text()
            where = f"behind {record.heard[-1].seq}" if record.heard else "at the beginning"
            record.trouble.append(f"answered {status} {where}: {said[:200]}")
        return 0.0

    def _is_connected(self) -> None:
        now = time.monotonic()
        record = self.record
        if self._last_byte is not None:
            record.longest_away_s = max(record.longest_away_s, now - self._last_byte)
        self._last_byte = now
        record.went_on_at = time.time()

    async def _listen(self, response: aiohttp.ClientResponse) -> None:
        """To the end of the body, or until something makes us leave it."""
        parser = EventParser()
        cut_at = time.monotonic() + self._chance.expovariate(1 / CUT_EVERY_S)
        cut_at = min(cut_at, self._leaves_at)
        while (left_s := cut_at - time.monotonic()) > 0:
            try:
                async with asyncio.timeout(min(left_s, SILENCE_S)):
                    data = await response.content.readany()
            except TimeoutError:
                break
            if not data:
                self.record.note("the body ended")
                return
            self._last_byte = time.monotonic()
            for event in parser.feed(data):
                self._hear(event)
            if self.record.heard and self.record.heard[-1].name == "done":
                await self._end(response)
                return
        self.record.cuts += 1
        self.record.note("left, or it was silent")

    async def _end(self, response: aiohttp.ClientResponse) -> None:
        """Behind ``done`` the body ends."""
        try:
            async with asyncio.timeout(LAST_S):
                rest = await response.content.read()
        except TimeoutError:
            self.record.trouble.append("the body has no end behind done")
        except (aiohttp.ClientError, OSError):
            pass  # somebody died just then
        else:
            if rest:
                self.record.trouble.append(f"behind done came {rest[:200]!r}")

    def _hear(self, event: Event) -> None:
        record = self.record
        run_id, _, seq = event.id.rpartition(".")
        if record.run_id not in ("", run_id):
            record.trouble.append(f"an event of another run: {event.id}")
            return
        heard = Heard(int(seq), event.event, json.loads(event.data), time.time())
        record.heard.append(heard)
        if not record.run_id:
            record.run_id = run_id
            record.conversation_id = heard.data["conversation_id"]
            self.is_known.set()

    def _leave_in_time(self) -> None:
        if time.monotonic() >= self._leaves_at and self.record.done is None:
            self.record.has_left = True
