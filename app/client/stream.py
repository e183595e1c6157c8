"""One run, followed to its end through lost connections.

What keeps an answer whole: every event has an id, a body that ends without ``done`` was cut, and
who asks again with the last id gets exactly the rest. Before the first id the ``Idempotency-Key``
does the same for the POST: repeating it joins the run that it started.

A run that failed before its model said or did anything is asked for again (``question``), and so
is one that is gone.
"""

import asyncio
import random
import re
from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress

from app.client.events import Done, Error, Event, Final, RunEvent, Start, Token, Waiting, decode
from app.client.link import ClientError, Link
from app.client.question import Question
from app.wire.parse import Event as Frame
from app.wire.parse import EventParser, EventTooLargeError

HEARTBEATS_MISSED = 3  # silence that means a dead connection
MAX_ATTEMPTS = 8  # without news; with our delays they last about as long as a run waits for us
FIRST_DELAY_S = 1.0  # until `retry:` tells another
LONGEST_DELAY_S = 15.0
LONGEST_RETRY_AFTER_S = 30.0  # a server that asks for more leaves it to the user
STOP_ATTEMPTS = 4
STOP_S = 15.0  # the server answers a stop within 10 s; some more for the network
# The ending of a run whose worker died has the next multiple of this as its number (section 5).
LEAP = 1_000_000
_ID = re.compile(r"([A-Za-z0-9_-]{1,64})\.([0-9]{1,18})")


def stream(
    text: str,
    url: str = "http://127.0.0.1:8000",
    *,
    model: str | None = None,
    conversation_id: str | None = None,
    key: str | None = None,
) -> AsyncGenerator[Event, None]:
    """Ask, and yield what the run tells, each event once, up to ``Done``; close it with
    ``aclosing``. A run that is left early lives on for ``GRACE_S``; ``Run.stop`` ends it.
    ``conversation_id``: the one to go on with; ``Start`` tells it. ``key``: where one is wanted.

    Raises ``ClientError`` when no more can be had.
    """
    return Run(text, url, model=model, conversation_id=conversation_id, key=key).follow()


class _Unsure(Exception):
    """The run failed, and whether anything came before is hidden: it is to be asked for."""


class Run:
    """``follow`` it, and after leaving that, ``stop`` it. Raises ``ClientError`` for the URL."""

    def __init__(
        self,
        text: str,
        url: str,
        *,
        model: str | None = None,
        conversation_id: str | None = None,
        key: str | None = None,
    ) -> None:
        self._link = Link(url, key)
        self._question = Question(text, model, conversation_id)
        self.conversation_id = conversation_id
        self._model = ""  # as `start` tells it
        self._cursor = ""  # the last id; it begins with the run's
        self._seq = 0  # its number
        self._reached = False  # somebody answered, so a refused connection is a restart
        self._may_live = False  # a run that we started, or may have
        self._ended: Done | None = None  # the ending, once it is known, should `done` get lost
        self._has_begun = False  # the model said something, or called a tool, which may have acted
        self._shows_tools = False  # what came before the ending is asked for, hidden or not
        self._failure: Error | None = None  # not shown, because the question is asked again
        self._first_delay_s = FIRST_DELAY_S

    async def follow(self) -> AsyncGenerator[Event, None]:
        """See ``stream``."""
        attempt = 0
        while True:
            trouble = ClientError("connection lost", again=True)  # if the body simply ends
            try:
                async with aclosing(self._events()) as events:
                    async for event in events:
                        attempt = 0  # news, so all is well
                        yield event
                        if isinstance(event, Done):
                            return
            except _Unsure:
                continue
            except ClientError as error:
                trouble = error
            if self._ended is not None:
                yield self._ended
                return
            attempt += 1
            delay_s = self._delay(trouble, attempt)
            yield Waiting(str(trouble), delay_s, resuming=self._may_live)
            await asyncio.sleep(delay_s)

    async def stop(self) -> bool:
        """End the run on the server; True once nothing of it lives. Never raises.

        Without an id the key tells it, also where the answer to the POST is still under way.
        """
        with suppress(TimeoutError):
            async with asyncio.timeout(STOP_S):
                for attempt in range(1, STOP_ATTEMPTS + 1):
                    if not self._may_live:
                        break
                    try:
                        return await self._stop_once()
                    except ClientError as error:
                        if not error.again:
                            break
                    await asyncio.sleep(_backoff(attempt, self._first_delay_s))
        return not self._may_live

    @property
    def bares_key(self) -> str | None:
        """Where the key goes in the clear; None if it does not."""
        return self._link.bares_key

    async def may_retract(self) -> bool:
        """Whether the model may use tools, so that no token is surely the answer before ``Final``;
        also True where the gateway does not tell. To be asked behind ``Start``."""
        try:
            models = await self._link.models()
        except ClientError:
            return True
        # A gateway without a models file takes names that it does not list, for its default's.
        named = [model for model in models if model.name == self._model]
        for model in named or [model for model in models if model.default]:
            return model.tools != []
        return True

    async def _stop_once(self) -> bool:
        if not self._cursor:
            async with aclosing(self._events()) as events:
                await anext(events, None)
        if not self._cursor:
            raise ClientError("connection lost", again=True)
        return await self._link.delete(self._run_id)

    @property
    def _run_id(self) -> str:
        return self._cursor.rpartition(".")[0]

    def _delay(self, trouble: ClientError, attempt: int) -> float:
        """Seconds until the next attempt. Raises ``trouble`` if waiting does not mend it."""
        if trouble.wait_s is None:
            delay_s = _backoff(attempt, self._first_delay_s)
        else:
            delay_s = trouble.wait_s * random.uniform(1, 1.25)  # not sooner, not all at once
        wrong_place = trouble.unreachable and not self._reached
        if wrong_place or not trouble.again or attempt >= MAX_ATTEMPTS:
            raise trouble
        if trouble.wait_s is not None and trouble.wait_s > LONGEST_RETRY_AFTER_S:
            sentence = str(trouble).rstrip(".")
            raise ClientError(f"{sentence}; it asks to wait {trouble.wait_s:.0f} s") from trouble
        return delay_s

    async def _events(self) -> AsyncGenerator[RunEvent, None]:
        """One connection: what is new on it. Raises ``ClientError``."""
        parser = EventParser()
        if not self._cursor:
            await self._question.prepare(self._link, self.conversation_id)
        lived, self._may_live = self._may_live, True  # from here on a cancel may leave a run
        if self._cursor:
            include = "tools" if self._shows_tools else ""
            chunks = self._link.resume(self._run_id, self._cursor, include)
        else:
            question = self._question
            chunks = self._link.ask(question.path, question.body, question.key)
        try:
            async with aclosing(chunks):
                async for chunk in chunks:
                    self._reached = True
                    for frame in parser.feed(chunk):
                        event = self._take(frame)
                        if parser.retry is not None:
                            self._first_delay_s = parser.retry / 1000
                        if event is not None:
                            yield event
        except EventTooLargeError as error:
            raise _unreadable() from error
        except ClientError as error:
            if error.unreachable or error.refused:
                self._may_live = lived  # an earlier request may have begun one
            if not error.unreachable:
                self._reached = True
            if error.code == "run_gone" and self._may_repeat:
                self._may_live = False
                raise self._repeat("the gateway no longer has this answer") from error
            if error.code == "not_found" and self.conversation_id:
                sentence = f"the gateway has no conversation {self.conversation_id}, or no longer"
                raise ClientError(sentence) from error
            raise

    def _take(self, frame: Frame) -> RunEvent | None:
        """Keep what the event says about the run; None if it is not for the reader.

        Raises ``ClientError`` when we may not read the run any more, though it lives on for a
        while, and when it failed, nothing is lost, and its key is free again; ``_Unsure`` when
        nothing may be lost.
        """
        try:
            event = decode(frame.event, frame.data)
        except ValueError as error:
            raise _unreadable() from error
        match = _ID.fullmatch(frame.id)
        if isinstance(event, Error) and event.code == "unauthorized":
            raise self._link.unauthorized()
        if isinstance(event, Error | Done):
            pass  # may come without an id (contract section 7), and then shows the last one again
        elif match is None:
            raise _unreadable()
        elif int(match[2]) <= self._seq:
            return None
        if match is not None:
            if self._seq and int(match[2]) > self._seq + 1:
                self._look_between(int(match[2]))
            self._cursor, self._seq = frame.id, int(match[2])
        if isinstance(event, Start):
            self._model = event.model
            self.conversation_id = event.conversation_id or self.conversation_id
            if event.heartbeat_ms > 0:
                self._link.silence_s = HEARTBEATS_MISSED * event.heartbeat_ms / 1000
        elif event is None or isinstance(event, Token):
            self._has_begun = True
        elif isinstance(event, Final):
            self._ended = Done("completed")
        elif isinstance(event, Error):
            if event.retryable and self._may_repeat:
                self._failure = event
                return None
            self._ended = Done("failed")
        elif isinstance(event, Done):
            self._may_live = False
            if self._failure is not None:
                raise self._repeat(self._failure.message)
        return event

    def _look_between(self, number: int) -> None:
        """Something came between that is not shown, as tools are not; but numbers leap to the
        ending of a run whose worker died, too. Raises ``_Unsure``."""
        if number % LEAP:
            self._has_begun = True
        elif self._may_repeat and not self._shows_tools:
            self._shows_tools = True
            raise _Unsure

    @property
    def _may_repeat(self) -> bool:
        return not self._has_begun and self._question.may_repeat

    def _repeat(self, why: str) -> ClientError:
        self._question.repeat(self._run_id)
        self._cursor, self._seq, self._failure, self._shows_tools = "", 0, None, False
        wait_s = _backoff(self._question.repeats, self._first_delay_s)
        return ClientError(why, again=True, wait_s=wait_s)


def _unreadable() -> ClientError:
    return ClientError("what came is not readable as an answer of a gateway")


def _backoff(attempt: int, first_s: float) -> float:
    """Exponential, with jitter in the upper half: readers that a restart cut together do not come
    back together, and the words "in 2 s" stay about true."""
    longest = min(LONGEST_DELAY_S, first_s * 2.0 ** (attempt - 1))
    return longest * random.uniform(0.5, 1)
