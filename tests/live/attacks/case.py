"""One attack: what is sent, byte for byte, and the answer that it must get.

Between two @ in what is sent stand names of the world (``tests.live.attacks.world``): @HOST@,
@ANN@ and @BOB@ (their keys), @MARK@ (a word of this case alone). @LENGTH@ is of what follows the
last blank line.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.live.attacks.world import World

Made = str | Callable[["World"], str]
ANN = "Authorization: Bearer @ANN@"
BOB = "Authorization: Bearer @BOB@"
CLOSE = "Connection: close"
# Headers of the page's files, and those with which Starlette answers any Origin.
PAGE = frozenset(
    {
        "accept-ranges",
        "content-security-policy",
        "cross-origin-opener-policy",
        "etag",
        "last-modified",
        "permissions-policy",
        "referrer-policy",
    }
)
CROSS = frozenset({"access-control-allow-credentials", "access-control-expose-headers"})
# A question that hides in what may be a body; @HIDDEN@, with its bytes as @HIDDEN_LENGTH@ and, in
# hexadecimal digits, as @HIDDEN_SIZE@.
HIDDEN = (
    b"GET /chat?on_disconnect=continue&text=sim:tokens,n=1%20@MARK@ HTTP/1.1\r\n"
    b"Host: @HOST@\r\nAuthorization: Bearer @BOB@\r\n\r\n"
)
JSON = "Content-Type: application/json"


@dataclass(frozen=True)
class Case:
    """``status``: of all answers on the connection, in their order. ``code``: of the last one's
    problem; without one it is no problem. ``made``: what @MADE@ stands for.

    ``text``: the last answer is a stream that ends well and says just this. ``error``: it is one
    that ends with this code. ``starts``: how often the model may be asked with @MARK@. ``never``:
    stands nowhere in the answers. ``has``: stands in them. ``sets``: headers that are not in every
    answer and may be in these. ``nginx``: sent through the load balancer.
    """

    name: str
    sent: bytes
    status: int | tuple[int, ...]
    code: str | None = None
    made: Made = ""
    text: str | None = None
    error: str | None = None
    starts: int = 0
    never: tuple[bytes, ...] = ()
    has: tuple[bytes, ...] = ()
    sets: frozenset[str] = frozenset()
    nginx: bool = False

    @property
    def statuses(self) -> tuple[int, ...]:
        return (self.status,) if isinstance(self.status, int) else self.status


def head(method: str, path: str | bytes, *lines: str | bytes) -> bytes:
    """Without its blank line."""
    first = b" ".join([method.encode(), _bytes(path), b"HTTP/1.1"])
    return b"\r\n".join([first, b"Host: @HOST@", *map(_bytes, lines)])


def get(path: str | bytes, *lines: str | bytes, method: str = "GET") -> bytes:
    """The last request of its connection; who calls stands in ``lines``."""
    return head(method, path, CLOSE, *lines) + b"\r\n\r\n"


def post(
    path: str | bytes,
    body: str | bytes,
    *lines: str | bytes,
    method: str = "POST",
    kind: str = JSON,
) -> bytes:
    more = (kind, "Content-Length: @LENGTH@", CLOSE, *lines)
    return head(method, path, *more) + b"\r\n\r\n" + _bytes(body)


def line(name: str, value: str | bytes) -> bytes:
    return b": ".join([name.encode(), _bytes(value)])


def kept(request: bytes) -> bytes:
    """Not the last one of its connection."""
    return request.replace(b"Connection: close\r\n", b"")


def _bytes(text: str | bytes) -> bytes:
    return text.encode() if isinstance(text, str) else text
