"""Redis's own account of a load: its CPU, what it was told to do, what it keeps."""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import redis

from app.events.redis_keys import Keys
from tests.bench.measure import Figures
from tests.bench.results import RedisUse
from tests.redis_server import RedisServer

_LOGS = Keys("gateway").log("*")  # as a pattern
Info = Mapping[str, Any]


class Account:
    """``uses`` is filled by load. Our own commands are not in it."""

    def __init__(self, client: redis.Redis) -> None:
        self.uses: dict[str, RedisUse] = {}
        self._client = client

    @classmethod
    @contextmanager
    def of(cls, server: RedisServer) -> Iterator["Account"]:
        with contextlib.closing(server.client()) as client:
            client.ping()  # what comes with a new connection comes now
            yield cls(client)

    def during(self, load: str, measure: Callable[[], Figures]) -> Figures:
        """The load's runs must have ended when it ends."""
        logs = self._logs()
        before = self._info()
        figures = measure()
        after = self._info()
        with self._client.pipeline(transaction=False) as pipeline:
            for key in self._logs() - logs:
                pipeline.memory_usage(key, samples=0)
            sizes = pipeline.execute()
        self.uses[load] = use(before, after, sum(sizes), figures.tokens)
        return figures

    def _logs(self) -> set[bytes]:
        return set(self._client.scan_iter(_LOGS, count=1000))

    def _info(self) -> Info:
        info: Info = self._client.info("everything")
        return info


def use(before: Info, after: Info, log_bytes: float, tokens: int) -> RedisUse:
    """Of two answers to INFO, and what the streams of the runs between them take. Pure."""

    def each(*names: str) -> float:
        grown: float = sum(after[name] - before[name] for name in names)
        return grown / max(1, tokens)

    calls = {
        name.removeprefix("cmdstat_"): said["calls"] - before.get(name, {"calls": 0})["calls"]
        for name, said in after.items()
        if name.startswith("cmdstat_") and name != "cmdstat_info"
    }
    return RedisUse(
        cpu_us=each("used_cpu_user", "used_cpu_sys") * 1e6,
        commands={name: count / max(1, tokens) for name, count in calls.items() if count},
        bytes_in=each("total_net_input_bytes"),
        bytes_out=each("total_net_output_bytes"),
        log_bytes=log_bytes / max(1, tokens),
        memory_bytes=each("used_memory") - each("mem_clients_normal"),
    )
