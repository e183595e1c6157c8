"""Several workers on one port: the parent keeps the listening sockets, children serve them.

Each worker has a socket of its own, and the kernel spreads connections over them. The parent keeps
all of them open, so what arrives while a worker is being replaced waits in the kernel's queue for
its successor: nothing is refused. A worker that is asked to end (SIGTERM) goes on until its
successor serves, then accepts nothing more and drains.

Once a successor did not come up while others serve, the socket is closed, or the kernel would give
it new connections that nobody accepts. The next tries have one that takes none before it is served.
"""

import asyncio
import logging
import os
import signal
import socket
from collections.abc import Callable, Sequence
from typing import NoReturn

from app.listening import reserve_beside
from app.worker import DRAIN, NOW, RELIEVED, Worker

logger = logging.getLogger(__name__)

PAUSE_S = 0.5  # before a successor, after a worker that was no good; doubles each time
MAX_PAUSE_S = 5.0  # connections of its socket, if still open, wait that long
AFTER_DRAIN_S = 15.0  # for a worker's last writes; then it is killed
NOW_S = 5.0  # for a worker to end at once; then it is killed


class Ended(Exception):
    """Why the parent stops: its exit code."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


class Place:
    """One listening socket, and the worker that serves it."""

    def __init__(
        self,
        listener: socket.socket,
        start: Callable[[socket.socket], Worker],
        others_serve: Callable[["Place"], bool],
        drain_s: float,
    ) -> None:
        self._listener = listener
        self._start = start
        self._others_serve = others_serve
        self._bound_s = drain_s + AFTER_DRAIN_S
        self._worker: Worker | None = None
        self._renewal: asyncio.Future[bool] | None = None
        self.filled = asyncio.Event()

    @property
    def serves(self) -> bool:
        """And is going to: a worker that leaves does not count."""
        return self._worker is not None and not self._worker.leaving.is_set()

    def close(self) -> None:
        self._listener.close()

    async def tend(self) -> NoReturn:
        """Always a worker. Raises ``Ended`` when the very first one cannot start."""
        failures = 0
        while True:
            if await self._fill():
                failures = 0
            else:
                failures += 1
                await asyncio.sleep(min(PAUSE_S * 2 ** (failures - 1), MAX_PAUSE_S))

    async def renew(self) -> bool:
        """Whether another worker serves now, and the one before has ended."""
        await self.filled.wait()
        old = self._worker
        if old is None:
            return False
        self._renewal = asyncio.get_running_loop().create_future()
        old.leaving.set()
        if await self._renewal:
            await old.ended.wait()  # ``_serve`` sees to that
            return True
        return False

    async def _fill(self) -> bool:
        """One worker's time; False: it was short."""
        try:
            worker = self._start(self._listener)
        except OSError as error:  # no memory, no process ids
            logger.warning("a worker cannot be started: %s", error)
            return await self._is_kept()
        if await worker.comes_up():
            await self._serve(worker)
            return not worker.ended_soon
        await worker.ended.wait()
        if self._worker is None and worker.code > 0:
            raise Ended(worker.code)
        logger.error("%s did not come up", worker)
        return await self._is_kept()

    async def _serve(self, worker: Worker) -> None:
        """It takes the place of the one before; until it has ended or wants to."""
        old, self._worker = self._worker, worker
        if old is not None:
            old.tell(RELIEVED)
            asyncio.get_running_loop().call_later(self._bound_s, old.kill)
        self._renewed(True)
        self.filled.set()
        await self._until_leaving(worker)

    async def _is_kept(self) -> bool:
        """No successor came up. The one that we wanted to replace stays, until it wants to end."""
        old = self._worker
        if old is None or old.ended.is_set():
            self._renewed(False)
            self._step_aside()
            return False
        if self._renewal is None:  # it was told to end, and shall
            old.tell(DRAIN)
            self._step_aside()  # it has the socket as well, and closes it when it ends
            return False
        old.leaving.clear()
        self._renewed(False)
        await self._until_leaving(old)
        return True

    def _step_aside(self) -> None:
        """New connections are for the others; without others they wait here, and the port is ours.

        What waits in the socket since its worker died is reset, unless net.ipv4.tcp_migrate_req is
        1. Serving it would take a living worker that accepts from this socket as well.
        """
        if not self._others_serve(self):
            return
        try:
            reserved = reserve_beside(self._listener)
        except OSError as error:  # no descriptors, no memory
            logger.warning("a socket without a worker stays open: %s", error)
            return
        self._listener.close()
        self._listener = reserved

    async def _until_leaving(self, worker: Worker) -> None:
        await worker.leaving.wait()
        level = logging.WARNING if worker.ended.is_set() else logging.INFO
        logger.log(level, "%s is being replaced", worker)

    def _renewed(self, done: bool) -> None:
        if self._renewal is not None and not self._renewal.done():
            self._renewal.set_result(done)
        self._renewal = None


class Parent:
    def __init__(
        self, listeners: Sequence[socket.socket], drain_s: float, announce: Callable[[], None]
    ) -> None:
        self._drain_s = drain_s
        self._announce = announce
        self._workers: set[Worker] = set()
        self._places = [
            Place(listener, self._start, self._others_serve, drain_s) for listener in listeners
        ]
        self._told = asyncio.Event()
        self._told_again = asyncio.Event()
        self._roll = asyncio.Event()
        self._has_terminal = os.isatty(0)

    async def run(self) -> int:
        """Until SIGTERM or SIGINT, or until workers cannot start; answers the exit code."""
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGCHLD, self._reap)
        loop.add_signal_handler(signal.SIGHUP, self._hang_up)
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._tell)
        code = 0
        try:
            async with asyncio.TaskGroup() as tasks:
                for place in self._places:
                    tasks.create_task(place.tend())
                tasks.create_task(self._begin())
                tasks.create_task(self._until_told())
        except* Ended as ends:
            code = max(end.code for end in ends.exceptions if isinstance(end, Ended))
        await self._end()
        return code

    async def _begin(self) -> NoReturn:
        """The first words; then restarts, as they are asked for."""
        for place in self._places:
            await place.filled.wait()
        self._announce()
        while True:
            await self._roll.wait()
            self._roll.clear()
            logger.info("restarting the workers, one after the other")
            for place in self._places:
                if not await place.renew():
                    logger.error("the restart stops here: the other workers stay as they are")
                    break
            else:
                logger.info("all workers have been restarted")

    async def _until_told(self) -> NoReturn:
        await self._told.wait()
        raise Ended(0)

    async def _end(self) -> None:
        for place in self._places:  # the workers have the sockets; who is the last closes
            place.close()
        for worker in self._workers:
            worker.end()
        gone = asyncio.ensure_future(self._all_gone())
        hurry = asyncio.ensure_future(self._told_again.wait())
        await asyncio.wait(
            {gone, hurry},
            timeout=self._drain_s + AFTER_DRAIN_S,
            return_when=asyncio.FIRST_COMPLETED,
        )
        if hurry.done():
            await asyncio.wait({gone}, timeout=NOW_S)
        hurry.cancel()
        for worker in self._workers:
            logger.error("%s did not end when told to: killed", worker)
            worker.kill()
        await gone

    async def _all_gone(self) -> None:
        for worker in list(self._workers):
            await worker.ended.wait()

    def _tell(self) -> None:
        """SIGTERM or SIGINT."""
        if self._told.is_set():
            self._told_again.set()
            for worker in self._workers:
                worker.tell(NOW)
        self._told.set()

    def _hang_up(self) -> None:
        """SIGHUP: somebody wants a restart, or the terminal that we were started on is gone."""
        if self._has_terminal and not os.isatty(0):
            self._tell()
        else:
            self._roll.set()

    def _reap(self) -> None:
        for worker in list(self._workers):
            worker.look()
            if worker.ended.is_set():
                self._workers.discard(worker)

    def _start(self, listener: socket.socket) -> Worker:
        worker = Worker(listener)
        self._workers.add(worker)
        return worker

    def _others_serve(self, place: Place) -> bool:
        return any(other.serves for other in self._places if other is not place)


def supervise(
    listeners: Sequence[socket.socket], drain_s: float, announce: Callable[[], None]
) -> int:
    """A worker for each of them, until a signal; answers the exit code. ``announce``: all serve."""

    async def run() -> int:
        return await Parent(listeners, drain_s, announce).run()

    return asyncio.run(run())
