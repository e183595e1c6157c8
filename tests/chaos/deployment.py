"""What runs: three gateways behind nginx, one Redis, one PostgreSQL, one model.

Packets between a gateway and Redis are dropped by a proxy of our own in between, not by the
kernel: network namespaces need root and iptables, which few machines of developers and none of our
CI's containers give to tests, and what a gateway sees is the same. Connections stay, nothing
arrives, and what was held back arrives late, as TCP sends it again.
"""

import random
import socket
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from signal import SIGCONT, SIGKILL, SIGSTOP, SIGTERM
from typing import Any

import httpx

from tests.chaos.plan import Plan
from tests.chaos.reader import HEARTBEAT_S
from tests.live.servers import PLAIN, Gateway, SimulatorProcess
from tests.nginx import Nginx, running_nginx
from tests.postgres import Postgres
from tests.redis_server import RedisServer
from tests.tcp_proxy import TcpProxy

WORKERS = 3
PREFIX = "chaos"


class Worker:
    """One gateway: processes come and go, its port and its proxy stay. ``is_well``: it runs, and
    nobody is about to change that. All methods wait."""

    def __init__(
        self, port: int, redis_url: str, upstream: str, cwd: Path, **settings: Any
    ) -> None:
        self.port = port
        self.url = f"http://127.0.0.1:{port}"
        self.proxy = TcpProxy(redis_url)
        self.is_well = False
        self._cwd = cwd
        self._upstream = upstream
        self._settings = settings
        self._gateway: Gateway | None = None
        self._said: list[str] = []

    @property
    def said(self) -> str:
        """By all its processes."""
        return "".join(self._said) + (self._gateway.output if self._gateway else "")

    def start(self) -> None:
        redis_url = f"{self.proxy.url}?prefix={PREFIX}"
        self._gateway = Gateway(
            self._cwd, self._upstream, port=self.port, redis_url=redis_url, **self._settings
        )
        self._gateway.wait_until_ready()
        self.is_well = True

    def kill(self) -> None:
        self._end(SIGKILL)

    def terminate(self) -> None:
        """Returns when it has drained."""
        self._end(SIGTERM)

    def halt(self) -> None:
        self._running.signal(SIGSTOP)

    def go_on(self) -> None:
        self._running.signal(SIGCONT)
        self.is_well = True

    def remove(self) -> None:
        if self._gateway is not None:
            self._gateway.stop()
        self.proxy.stop()

    @property
    def _running(self) -> Gateway:
        assert self._gateway is not None
        return self._gateway

    def _end(self, number: Any) -> None:
        gateway = self._running
        gateway.signal(number)
        gateway.wait()
        gateway.stop()
        self._said.append(gateway.output)
        self._gateway = None


class Deployment:
    """``url``: of nginx."""

    def __init__(self, plan: Plan, stack: ExitStack) -> None:
        home = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="chaos-")))
        ports = free_ports(WORKERS + 2)
        self.redis = RedisServer()
        self.redis.port = ports.pop()
        self.redis.url = f"redis://127.0.0.1:{self.redis.port}"
        stack.callback(self.redis.remove)
        self.redis.start()
        self.postgres = Postgres()
        self.postgres.port = ports.pop()
        stack.callback(self.postgres.remove)
        self.postgres.start()
        self.database_url = self.postgres.database()
        self.simulator = SimulatorProcess(home)
        stack.callback(self.simulator.stop)
        self.workers: list[Worker] = []
        for port in ports:
            worker = Worker(
                port,
                self.redis.url,
                self.simulator.url,
                home,
                database_url=self.database_url,
                data_dir=home / str(port),
                heartbeat_seconds=HEARTBEAT_S,
                drain_seconds=plan.drain_s,
            )
            stack.callback(worker.remove)
            worker.start()
            self.workers.append(worker)
        self.nginx: Nginx = stack.enter_context(running_nginx(ports))
        self.url = self.nginx.url

    def calls(self) -> list[dict[str, Any]]:
        """What the model was asked, oldest first."""
        calls: list[dict[str, Any]] = self.simulator.stats()["calls"]
        return calls

    def open_calls(self) -> int:
        return sum(call["outcome"] == "open" for call in self.calls())

    def ready(self, worker: Worker) -> dict[str, Any]:
        answer: dict[str, Any] = httpx.get(f"{worker.url}/ready", timeout=10, **PLAIN).json()
        return answer


@contextmanager
def running(plan: Plan) -> Iterator[Deployment]:
    with ExitStack() as stack:
        yield Deployment(plan, stack)


def free_ports(count: int) -> list[int]:
    """Below those that the kernel gives to outgoing connections: with hundreds of them every
    second, one would soon have the port of a server that is being restarted."""
    low = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    found: list[int] = []
    while len(found) < count:
        port = random.randrange(max(1024, low - 20_000), low)
        with socket.socket() as probe:
            if port not in found and probe.connect_ex(("127.0.0.1", port)):
                found.append(port)
    return found
