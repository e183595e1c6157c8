"""What a run of the benchmark found, as it is written to JSON."""

from dataclasses import dataclass, field

from tests.bench.machine import Machine
from tests.bench.measure import Figures


@dataclass(frozen=True)
class Leaving:
    """S4. Milliseconds from a client's close to the close of its call at the model's server."""

    left: int  # clients
    closed: int  # calls, of these
    p50_ms: float | None
    max_ms: float | None
    errors: dict[str, int]


@dataclass(frozen=True)
class Silence:
    """S5. Seconds from the request; ``signs_s``: reads between the head and the first token."""

    head_s: float | None
    signs_s: list[float]
    heartbeat_s: float | None  # what the answer itself promises
    complete: bool  # the whole answer came after the silence


@dataclass(frozen=True)
class Start:
    """S6. Seconds from the start of the process."""

    port_s: float
    answer_s: float
    idle_mib: float


@dataclass(frozen=True)
class RedisUse:
    """Redis's own account of one load; all of it for each token."""

    cpu_us: float
    commands: dict[str, float]  # by name; those that scripts call are in it too
    bytes_in: float  # from workers
    bytes_out: float
    log_bytes: float  # memory of the runs' streams, once the runs have ended
    memory_bytes: float  # by which all memory grew, less what connections take


@dataclass(frozen=True)
class Sharing:
    """Workers that share runs through Redis. By load, see ``sharing``."""

    alone: dict[str, Figures]  # CPU of the writer without Redis
    writer: dict[str, Figures]  # with it
    redis: dict[str, RedisUse]
    remote: Figures  # CPU of the readers' worker
    crowd: dict[str, Figures]  # of the readers' worker, by where the run is made

    def measured(self) -> list[Figures]:
        return [*self.alone.values(), *self.writer.values(), self.remote, *self.crowd.values()]


@dataclass
class Result:
    """Of one target; empty where a scenario was not run, or does not apply."""

    title: str
    error: str | None = None  # why it could not be measured
    flat_out: list[Figures] = field(default_factory=list)  # S1
    paced: list[Figures] = field(default_factory=list)  # S2
    many: list[Figures] = field(default_factory=list)  # S3
    leaving: Leaving | None = None
    silence: dict[str, Silence] = field(default_factory=dict)  # by what the model holds back
    starts: list[Start] = field(default_factory=list)
    readers: list[Figures] = field(default_factory=list)
    replay: list[Figures] = field(default_factory=list)
    growth: dict[int, Figures] = field(default_factory=dict)  # by open streams
    sharing: Sharing | None = None


@dataclass
class Results:
    machine: Machine
    runs: int  # of which the median is taken; there are more where some were noisy
    targets: dict[str, Result] = field(default_factory=dict)
