"""A model of what Redis has of one run, without Redis: answers the two questions of a look."""

from collections.abc import Sequence
from typing import Any

from app.events.mirror import JUMP
from app.events.model import Event, Token
from app.events.packed import pack, pack_record
from app.events.redis_keys import Keys
from tests.events.making import done, record

KEYS = Keys("test")
RUN = record()


def token(seq: int) -> Token:
    return Token(f"t{seq}")


def up_to(last: int) -> list[int]:
    return list(range(1, last + 1))


class Stored:
    """What Redis has of one run, and its writer, which has told ``told`` tokens and not ended.

    ``on_air``: messages that were published and not yet heard.
    """

    def __init__(self) -> None:
        self.told = 0
        self.on_air: list[bytes] = []
        self.epoch = 0
        self.is_ended = False
        self.open()

    def open(self) -> None:
        """Also after Redis came back empty."""
        self.epoch += 1
        self.base, self.last = self.epoch, 0
        self.entries: list[tuple[int, int, bytes]] = []
        self.is_there = True

    def append(self, count: int) -> None:
        """The next events, of those that it has lost first."""
        first = self.last + 1
        self.told = max(self.told, self.last + count)
        self.store(first, [token(seq) for seq in range(first, first + count)])

    def end(self) -> None:
        while self.last < self.told:
            self.append(min(64, self.told - self.last))
        self.store(self.last + 1, [done()])
        self.is_ended = True

    def take_over(self) -> None:
        self.epoch += 1
        self.store((self.last // JUMP + 1) * JUMP, [done("failed")])
        self.is_ended = True

    def lose_tail(self, count: int) -> None:
        """As Redis does that was killed within a second after it had them."""
        del self.entries[len(self.entries) - count :]
        self.last = self.entries[-1][1] if self.entries else 0

    def store(self, first: int, events: Sequence[Event]) -> None:
        blob = pack(self.epoch, first, events)
        self.last = first + len(events) - 1
        self.entries.append((self.epoch, self.last, blob))
        self.on_air.append(blob)

    def known(self, command: Sequence[Any]) -> list[bytes | None]:
        assert command[:2] == ("HMGET", KEYS.run(RUN.run_id))
        if not self.is_there:
            return [None] * len(command[2:])
        fields = {name: b"%d" % getattr(self, name) for name in ("epoch", "base", "last")}
        fields["record"] = pack_record(RUN)
        return [fields[field] for field in command[2:]]

    def page(self, command: Sequence[Any]) -> list[list[Any]]:
        assert command[:2] == ("XRANGE", KEYS.log(RUN.run_id))
        epoch, seq = map(int, command[2].split("-"))
        assert command[3:5] == ("+", "COUNT")
        if not self.is_there:
            return []
        found = [entry for entry in self.entries if entry[:2] >= (epoch, seq)]
        return [[b"", [b"b", blob]] for *_, blob in found[: command[5]]]
