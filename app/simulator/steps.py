"""What an answer consists of. Values only; a plain ``str`` is one chunk of content.

``str`` and no class for it, because it is by far the most frequent step and costs nothing.
"""

from dataclasses import dataclass
from enum import Enum


class Close(Enum):
    """How the connection goes on after the last byte of an answer."""

    KEEP = "keep"  # the HTTP message is complete
    NEVER = "never"  # it is not, and we wait until the peer leaves
    RST = "rst"
    FIN = "fin"


@dataclass(frozen=True, slots=True)
class Role:
    """The first chunk; ``content`` is null where no text is expected."""

    content: str | None = ""


@dataclass(frozen=True, slots=True)
class Reasoning:
    text: str


@dataclass(frozen=True, slots=True)
class ToolPart:
    """A fragment of a tool call; ``id`` and ``name`` only in the first one of each index."""

    index: int
    arguments: str
    id: str | None = None
    name: str | None = None


class Garbage(Enum):
    """Bytes that no correct server sends; ``frames`` knows them."""

    JSON = "json"
    SHAPE = "shape"
    UTF8 = "utf8"


@dataclass(frozen=True, slots=True)
class InStreamError:
    code: str


@dataclass(frozen=True, slots=True)
class Refuse:
    """Instead of a stream: an HTTP error. Nothing follows."""

    status: int
    code: str | None
    retry_after: str | None


@dataclass(frozen=True, slots=True)
class Page:
    """Instead of a stream: an HTML page with status 200. Nothing follows."""


@dataclass(frozen=True, slots=True)
class Drop:
    """Instead of any byte: the connection closes. Nothing follows."""


@dataclass(frozen=True, slots=True)
class End:
    """The last step of every stream."""

    reason: str | None = "stop"  # None: no finish_reason and no usage
    done: bool = True  # whether [DONE] is sent
    close: Close = Close.KEEP


Step = str | Role | Reasoning | ToolPart | Garbage | InStreamError | Refuse | Page | Drop | End
