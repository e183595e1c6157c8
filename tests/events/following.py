"""Runs of another worker, for tests of what reads them: a writer that leaves out, doubles and
repeats what it publishes as it is told to, and the mirrors of one worker."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

import redis

from app.events.log import Reader
from app.events.mirror import JUMP
from app.events.model import Done, Entry, Event, Token
from app.events.packed import pack, pack_record
from app.events.redis_channel import Channel
from app.events.redis_keys import Keys
from app.events.redis_link import Link
from app.events.redis_mirror import Mirrors
from tests.events.making import done, record, start

BOUND_S = 30.0  # for one test
NEVER_S = 60.0  # a silence that a test would not survive


class Writer:
    """Writes as the real one does, each batch in one step. ``told``: the events so far."""

    def __init__(self, client: redis.Redis, keys: Keys) -> None:
        self._client = client
        self._keys = keys
        self.record = record()
        self.run_id = self.record.run_id
        self.told: list[Event] = []
        self.epoch = 0
        self.open()

    @property
    def channel(self) -> str:
        return self._keys.events(self.run_id)

    def open(self) -> None:
        self.epoch += 1
        self._client.hset(
            self._keys.run(self.run_id),
            mapping={
                "record": pack_record(self.record),
                "epoch": self.epoch,
                "base": self.epoch,
                "last": 0,
            },
        )

    def tell(self, count: int = 1, *, publish: int = 1) -> None:
        """The next tokens, as one batch that is published so many times."""
        begin = len(self.told)
        texts = [f"t{seq} " for seq in range(begin + 1, begin + 1 + count)]
        events: list[Event] = [Token(text) for text in texts]
        if not self.told:
            events[0] = start(self.record)
        self.told += events
        self._store(begin + 1, events, publish)

    def end(self, *, publish: int = 1) -> None:
        self.told.append(done())
        self._store(len(self.told), self.told[-1:], publish)

    def take_over(self, *, publish: int = 1) -> list[Event]:
        """Another worker ends the run."""
        self.epoch += 1
        self._client.hset(self._keys.run(self.run_id), "epoch", self.epoch)
        ending: list[Event] = [Token("ending"), done("failed")]
        self._store((len(self.told) // JUMP + 1) * JUMP, ending, publish)
        return ending

    def write_again(self, batch: int, *, publish: int = 1) -> None:
        """All of it, after Redis came back empty."""
        self.open()
        for at in range(0, len(self.told), batch):
            self._store(at + 1, self.told[at : at + batch], publish)

    def repeat(self, first: int, last: int) -> None:
        """Published, but not stored once more."""
        self._client.publish(self.channel, pack(self.epoch, first, self.told[first - 1 : last]))

    def forget(self) -> None:
        self._client.delete(self._keys.run(self.run_id), self._keys.log(self.run_id))

    def listeners(self) -> int:
        """Connections that are subscribed to the run."""
        return int(self._client.pubsub_numsub(self.channel)[0][1])

    def _store(self, first: int, events: Sequence[Event], publish: int) -> None:
        last = first + len(events) - 1
        blob = pack(self.epoch, first, events)
        with self._client.pipeline(transaction=True) as step:
            step.xadd(self._keys.log(self.run_id), {"b": blob}, id=f"{self.epoch}-{last}")
            step.hset(self._keys.run(self.run_id), "last", last)
            for _ in range(publish):
                step.publish(self.channel, blob)
            step.execute()


@asynccontextmanager
async def following(
    url: str,
    *,
    memory_bytes: int = 1 << 26,
    linger_s: float = 5.0,
    lease_s: float = 20.0,
    away_s: float = 30.0,
    watch_s: float = 60.0,
) -> AsyncIterator[tuple[Link, Mirrors]]:
    """One worker. By default it depends on messages: it looks by itself only every minute."""
    link = Link(url)
    channel = Channel(link)
    mirrors = Mirrors(
        link,
        channel,
        memory_bytes=memory_bytes,
        linger_s=linger_s,
        lease_s=lease_s,
        away_s=away_s,
        watch_s=watch_s,
    )
    try:
        async with asyncio.TaskGroup() as tasks:
            running = [tasks.create_task(one.run()) for one in (link, channel, mirrors)]
            async with asyncio.timeout(BOUND_S):
                await link.reachable()
                yield link, mirrors
            for task in running:
                task.cancel()
    finally:
        await link.aclose()


async def until(holds: Callable[[], bool]) -> None:
    """The caller bounds it."""
    while not holds():  # noqa: ASYNC110  # nothing tells
        await asyncio.sleep(0.01)


async def take(reader: Reader, count: int) -> list[Entry]:
    """At least so many entries. The caller bounds the wait."""
    entries: list[Entry] = []
    while len(entries) < count:
        entries += await reader.read(NEVER_S)
    return entries


async def to_end(reader: Reader) -> list[Entry]:
    """All entries up to ``Done``. The caller bounds the wait."""
    entries: list[Entry] = []
    while not entries or type(entries[-1].event) is not Done:
        entries += await reader.read(NEVER_S)
    reader.close()
    return entries


def numbers(entries: Sequence[Entry]) -> list[int]:
    return [entry.seq for entry in entries]


def up_to(last: int) -> list[int]:
    return list(range(1, last + 1))
