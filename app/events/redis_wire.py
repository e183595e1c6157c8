"""One connection to Redis: redis-py opens it, hiredis packs what is asked and parses the answers.

redis-py knows addresses, TLS, passwords and databases. Once the connection is open it is not used:
a command of ten words in a pipeline costs it 10 to 12 µs, hiredis alone 1.5 µs, and a message that
somebody published 12 µs against 4 µs.
"""

import asyncio
import re
import ssl
from collections.abc import Callable, Sequence
from typing import Any

import hiredis
from redis.asyncio.connection import AbstractConnection, parse_url
from redis.asyncio.connection import Connection as TcpConnection
from redis.exceptions import AuthenticationError, InvalidResponse, RedisError, ResponseError

Command = tuple[str | bytes | int, ...]

_NOTHING = object()
_NOBODY = asyncio.Protocol()
_pack: Callable[[Command], bytes] = hiredis.pack_command  # type: ignore[assignment]  # stub: of one
# What an address may set besides ``ssl_*``; the rest would change how redis-py works for us.
_OPTIONS = {"connection_class", "host", "port", "path", "db", "username", "password", "client_name"}
_PREFIX = re.compile(r"[\w.:-]{1,100}", re.ASCII)  # braces would move the keys' hash tags

# The first word of an error, and what is the matter. It may pass; nothing can be done until then.
_AWAY = {
    "LOADING": "loading its data",
    "READONLY": "read-only replica",
    "OOM": "out of memory",
    "MISCONF": "cannot save its data",
    "NOREPLICAS": "too few replicas",
    "MASTERDOWN": "its master is down",
    "CLUSTERDOWN": "cluster is down",
    "TRYAGAIN": "cluster is moving keys",
    "MOVED": "cluster, which is not supported",
    "ASK": "cluster, which is not supported",
    "BUSY": "busy with a script",
    "NOSCRIPT": "lost its scripts",
    "NOAUTH": "asks for a password",
    "WRONGPASS": "refused the password",
    "NOPERM": "lacks a permission",
}
_TOO_MANY = "max number of clients reached"


class ErrorReply(Exception):
    """Redis refused one command. ``code``: the first word of what it said."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.code = text.partition(" ")[0]

    @property
    def away(self) -> str | None:
        """What is the matter with Redis itself; None: with the command."""
        return _AWAY.get(self.code)


# Whatever a connection can fail with.
FAILURES = (OSError, RedisError, hiredis.HiredisError, ErrorReply)


def matter(error: BaseException) -> str:
    """What is the matter, in a few words without address and password."""
    match error:
        case ErrorReply():
            return error.away or "refused a command"
        case RedisError() if str(error) == _TOO_MANY:
            return "too many clients"
        case RedisError() if error.status_code in _AWAY:
            return _AWAY[error.status_code]
        case AuthenticationError():
            return "refused the password"
        case ResponseError():
            return "refused a command"
        case hiredis.HiredisError() | InvalidResponse():
            return "speaks another protocol"
        case RedisError(__cause__=cause, __context__=context):  # its text has the address
            return matter(cause or context or ConnectionResetError())
        case TimeoutError():
            return "no answer"
        case ConnectionRefusedError():
            return "connection refused"
        case ConnectionError():
            return "connection lost"
        case ssl.SSLError():
            return "TLS failed"
    return "cannot be reached"


class Address:
    """Where Redis is. Raises ``ValueError``, whose text has no part of the address."""

    def __init__(self, url: str) -> None:
        try:
            options: dict[str, Any] = dict(parse_url(url))
            self.prefix = str(options.pop("prefix", "gateway"))
            self._class: type[AbstractConnection] = options.pop("connection_class", TcpConnection)
            self._options = options
            self.connection()
        except (ValueError, TypeError, RedisError):
            raise ValueError("not an address of Redis that can be used") from None
        if not all(name in _OPTIONS or name.startswith("ssl_") for name in options):
            raise ValueError("an address of Redis with a parameter that is not known")
        if not _PREFIX.fullmatch(self.prefix):
            raise ValueError("a prefix of letters, digits and _ . : -, 100 at most")

    def connection(self) -> AbstractConnection:
        """Not open yet. Time limits are its user's: redis-py's make a task for each write."""
        return self._class(
            **self._options,
            protocol=2,
            driver_info=None,  # Redis before 7.2 does not know CLIENT SETINFO
            socket_timeout=None,
            socket_connect_timeout=None,
        )


class Wire(asyncio.Protocol):
    """A connection that can be opened again after it was closed. Every wait is its user's to bound.

    Whoever fails or is cancelled in ``exchange`` must ``close`` it: answers may still be coming.
    ``lost`` is called when the other side closes it.
    """

    def __init__(self, address: Address, lost: Callable[[], None] | None = None) -> None:
        self._address = address
        self._lost = lost
        self._stream: asyncio.StreamWriter | None = None
        self._parser = _parser()
        self._answers: list[Any] = []
        self._waiter: asyncio.Future[None] | None = None
        self._count = 0  # of answers that are waited for

    @property
    def is_open(self) -> bool:
        """As far as we know by now. With an answer that nobody asked for it is of no use."""
        return self._stream is not None and not self._answers and not self._parser.has_data()

    async def open(self) -> None:
        self.close()
        connection = self._address.connection()
        try:
            await connection.connect()  # type: ignore[no-untyped-call]  # redis-py has no types here
            # What a server says that hangs up on us is read here, before the streams are ours.
            await connection.send_command("PING")
            await connection.read_response()
        except BaseException:
            await connection.disconnect(nowait=True)
            raise
        # The writer is kept, because it closes its transport when it goes.
        self._stream = connection._writer
        connection._reader = connection._writer = None
        self._parser = _parser()
        self._answers = []
        if self._stream is not None:
            self._stream.transport.set_protocol(self)

    def close(self) -> None:
        self._end(ConnectionResetError())

    def send(self, commands: Sequence[Command]) -> None:
        """Goes out as fast as the other side takes it."""
        if self._stream is None:
            raise ConnectionResetError
        self._stream.write(b"".join(map(_pack, commands)))

    async def receive(self, count: int = 1) -> list[Any]:
        """What has come, at least ``count`` answers."""
        if len(self._answers) < count:
            if self._stream is None:
                raise ConnectionResetError
            self._count = count
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        answers, self._answers = self._answers, []
        return answers

    async def exchange(self, commands: Sequence[Command]) -> list[Any]:
        """One answer for each command, ``ErrorReply`` among them."""
        self.send(commands)
        return await self.receive(len(commands))

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed(data)
            while (answer := self._parser.gets()) is not _NOTHING:
                self._answers.append(answer)
        except hiredis.HiredisError as error:
            self._end(error)
        else:
            is_enough = len(self._answers) >= self._count
            if is_enough and self._waiter is not None and not self._waiter.done():
                self._waiter.set_result(None)

    def eof_received(self) -> None:
        self.connection_lost(None)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002  # asyncio's signature
        self.close()
        if self._lost is not None:
            self._lost()

    def _end(self, why: Exception) -> None:
        if self._stream is not None:
            transport = self._stream.transport
            transport.set_protocol(_NOBODY)  # what it still has to say is not about our next one
            transport.abort()
            self._stream = None
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_exception(why)


def _parser() -> hiredis.Reader:
    return hiredis.Reader(replyError=ErrorReply, notEnoughData=_NOTHING)
