"""One port for several sockets, and what a parent of workers does not need."""

import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing

import pytest

from app.listening import BACKLOG, CannotListen, listen, listen_together, reserve_beside

CONNECTIONS = 200
# Of a fair spread of 200 over 2 the standard deviation is 7: once in many millions it is less.
AT_LEAST = 60


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def together(stack: ExitStack, host: str, port: int, count: int) -> Sequence[socket.socket]:
    return [stack.enter_context(closing(each)) for each in listen_together(host, port, count)]


def accept_all(listener: socket.socket) -> Iterator[socket.socket]:
    while True:
        try:
            connection, _ = listener.accept()
        except BlockingIOError:
            return
        with closing(connection):
            yield connection


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_any_free_port_is_the_same_one_for_all_sockets(stack: ExitStack, host: str) -> None:
    listeners = together(stack, host, 0, 4)
    assert len(listeners) == 4
    assert len({listener.getsockname() for listener in listeners}) == 1


def test_connections_are_spread_evenly(stack: ExitStack) -> None:
    listeners = together(stack, "127.0.0.1", 0, 2)
    address = listeners[0].getsockname()
    for _ in range(CONNECTIONS):
        stack.enter_context(closing(socket.create_connection(address, 10)))
    counts = [len(list(accept_all(listener))) for listener in listeners]
    assert sum(counts) == CONNECTIONS
    assert min(counts) >= AT_LEAST, counts


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_a_reserved_socket_takes_connections_once_somebody_listens_on_it(
    stack: ExitStack, host: str
) -> None:
    gone, stays = together(stack, host, 0, 2)
    address = stays.getsockname()

    def connect() -> None:
        for _ in range(CONNECTIONS):
            stack.enter_context(closing(socket.create_connection(address[:2], 10)))

    reserved = stack.enter_context(closing(reserve_beside(gone)))
    gone.close()
    connect()
    assert len(list(accept_all(stays))) == CONNECTIONS
    reserved.listen(BACKLOG)
    connect()
    counts = [len(list(accept_all(listener))) for listener in (stays, reserved)]
    assert sum(counts) == CONNECTIONS
    assert min(counts) >= AT_LEAST, counts


def test_all_sockets_have_the_options_of_a_single_one(stack: ExitStack) -> None:
    single = stack.enter_context(closing(listen("127.0.0.1", 0)))
    options = (
        (socket.SOL_SOCKET, socket.SO_REUSEADDR),
        (socket.SOL_SOCKET, socket.SO_SNDBUF),
        (socket.SOL_SOCKET, socket.SO_KEEPALIVE),
        (socket.IPPROTO_TCP, socket.TCP_NODELAY),
    )
    for listener in together(stack, "127.0.0.1", 0, 2):
        assert not listener.getblocking()
        for option in options:
            assert listener.getsockopt(*option) == single.getsockopt(*option) > 0


@pytest.mark.parametrize("count", [1, 2])
def test_a_port_that_others_share_already_is_taken(stack: ExitStack, count: int) -> None:
    """Whoever sets the same option could join them; a second gateway must not."""
    port = together(stack, "127.0.0.1", 0, 2)[0].getsockname()[1]
    with pytest.raises(CannotListen, match="in use"):
        listen_together("127.0.0.1", port, count)


def test_the_parent_loads_no_web_framework_and_no_langchain() -> None:
    """It lives as long as its workers and does nothing: what it loads is memory."""
    says = (
        "import sys, app.__main__, app.workers\n"
        "print(*{'fastapi', 'uvicorn', 'langchain_core', 'sqlalchemy', 'redis'} & {*sys.modules})"
    )
    loaded = subprocess.run(
        [sys.executable, "-c", says], capture_output=True, text=True, timeout=60, check=True
    )
    assert loaded.stdout.split() == []
