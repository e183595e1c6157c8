"""How much of everything: the same code makes five minutes and twenty seconds of it."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Plan:
    """Seconds, where nothing else is said.

    ``streams``: readers of a run of their own that are there at any time. ``every_s``: from one
    fault to the next. ``asleep_s``: a worker is stopped for so long, which matters most beyond the
    lease. ``silent_s``: packets from and to Redis are dropped. ``longest_s``: an answer takes.
    ``drain_s``: a worker that is told to go waits for its runs. ``lost_within_s``: readers know by
    then that their run's worker has died. ``settle_s``: all is quiet so long after the last fault.
    """

    seed: int
    seconds: float = 300.0
    streams: int = 200
    every_s: float = 10.0
    asleep_s: float = 30.0
    silent_s: float = 5.0
    longest_s: float = 40.0
    drain_s: float = 8.0
    lost_within_s: float = 25.0
    settle_s: float = 60.0
