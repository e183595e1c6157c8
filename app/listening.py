"""Sockets to listen on. Knows no server: the parent of several workers needs no more than this."""

import resource
import socket
from typing import Any

BACKLOG = 2048  # connections that the kernel accepts for us while we are busy
# Kernel memory for each connection; Linux doubles it. Without it a frozen reader fills megabytes.
SEND_BUFFER_BYTES = 64 * 1024


class CannotListen(Exception):
    """The text says why."""


def listen(host: str, port: int) -> socket.socket:
    """A listening socket whose options every connection inherits. Raises ``CannotListen``."""
    try:
        family, _, _, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        return _listener(family, address)
    except (OSError, UnicodeError) as error:
        raise CannotListen(str(error)) from error


def listen_together(host: str, port: int, count: int) -> list[socket.socket]:
    """That many on one port; the kernel spreads connections over them by a hash of both addresses
    (socket(7), ``SO_REUSEPORT``; Linux). Raises ``CannotListen``.

    The first one takes the port alone, which fails where somebody else listens, another gateway
    with workers too. Only then is it shared: else the two would silently share it.
    """
    first = listen(host, port)
    try:
        first.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        address = first.getsockname()
        return [first, *(_listener(first.family, address, shared=True) for _ in range(1, count))]
    except OSError as error:
        first.close()
        raise CannotListen(str(error)) from error


def reserve_beside(listener: socket.socket) -> socket.socket:
    """One more on the port of a socket of ``listen_together``. The kernel gives it no connections
    before somebody listens on it, as a worker does once it can serve. Raises ``OSError``."""
    return _bound(listener.family, listener.getsockname(), shared=True)


def raise_file_limit() -> None:
    """Each reader and each upstream call is a file; many systems begin with a soft limit of 1024
    and let a process raise its own (setrlimit(2))."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _listener(family: int, address: Any, *, shared: bool = False) -> socket.socket:
    listener = _bound(family, address, shared=shared)
    try:
        listener.listen(BACKLOG)
    except OSError:
        listener.close()
        raise
    return listener


def _bound(family: int, address: Any, *, shared: bool) -> socket.socket:
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        listener.bind(address)
    except OSError:
        listener.close()
        raise
    listener.setblocking(False)
    return listener
