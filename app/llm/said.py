"""What the filters of an answer say: events, gathered over one feed."""

from collections.abc import Sequence

from app.events.model import Draft, Event, Reasoning, Token

Kind = type[Token] | type[Reasoning] | type[Draft]


class Said:
    """The events of one feed: neighbours of one kind joined, none of them empty."""

    __slots__ = ("_events", "_kind", "_texts")

    def __init__(self) -> None:
        self._events: list[Event] = []
        self._kind: Kind = Token
        self._texts: list[str] = []

    def add(self, kind: Kind, text: str) -> None:
        if not text:
            return
        if kind is not self._kind:
            self._join()
            self._kind = kind
        self._texts.append(text)

    def events(self) -> Sequence[Event]:
        self._join()
        return self._events

    def _join(self) -> None:
        if self._texts:
            self._events.append(self._kind("".join(self._texts)))
            self._texts = []
