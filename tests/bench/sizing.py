"""Tables of what it costs to share runs: each a head and rows. Pure."""

import math
from collections.abc import Callable, Iterator, Sequence

from tests.bench.figures import Number, is_noisy, ratio, shown
from tests.bench.measure import Figures
from tests.bench.results import RedisUse, Sharing

Table = tuple[Sequence[str], Sequence[Sequence[str]]]
_LOADS = {
    "S1": "S1: 32 streams flat out",
    "S2": "S2: 200 streams, 50 tokens/s each",
    "local": "200 runs, 25 tokens/s each",
    "remote": "the same, read on another worker",
}
_REDIS: dict[str, tuple[Callable[[RedisUse], float], int]] = {  # with digits
    "bytes in Redis, streams alone": (lambda use: use.log_bytes, 0),
    "bytes in Redis, all": (lambda use: use.memory_bytes, 0),
    "Redis, CPU µs": (lambda use: use.cpu_us, 1),
    "calls of scripts a second, for 1,000 tokens/s": (
        lambda use: use.commands.get("evalsha", 0) * 1000,
        0,
    ),
    "commands a second, those in scripts too, for 1,000 tokens/s": (
        lambda use: sum(use.commands.values()) * 1000,
        0,
    ),
    "bytes to Redis": (lambda use: use.bytes_in, 0),
    "bytes from Redis": (lambda use: use.bytes_out, 0),
}


def tables(sharing: Sharing) -> list[Table]:
    return [
        (("for each token", *_LOADS.values()), [*_redis(sharing), *_writer(sharing)]),
        (("CPU of the readers' worker", "local µs", "remote µs", "remote ÷ local"), _read(sharing)),
    ]


def remote_against_all(sharing: Sharing) -> Number:
    """A remote reader, over what the same one costs the run's own worker, the run included."""
    return ratio(_us(sharing.remote), _us(sharing.writer["local"]))


def remote_against_reading(sharing: Sharing) -> Number:
    """The same, over reading alone."""
    return ratio(_us(sharing.remote), _reading_us(sharing))


def remote_in_crowd(sharing: Sharing) -> Number:
    return ratio(_us(sharing.crowd["remote"]), _us(sharing.crowd["local"]))


def _redis(sharing: Sharing) -> Iterator[list[str]]:
    for what, (pick, digits) in _REDIS.items():
        yield [
            what,
            *(
                shown(
                    pick(sharing.redis[load]) if sharing.writer[load].counts else math.nan, digits
                )
                for load in _LOADS
            ),
        ]


def _writer(sharing: Sharing) -> Iterator[list[str]]:
    for what, runs in (("without Redis", sharing.alone), ("with Redis", sharing.writer)):
        cells = [_cell(runs[load]) if load in runs else "-" for load in _LOADS]
        yield [f"the writer's worker, CPU µs {what}", *cells]


def _read(sharing: Sharing) -> list[list[str]]:
    remote, crowd = _cell(sharing.remote), sharing.crowd
    return [
        [
            "200 runs, 25 tokens/s each, one reader each; local: making and reading",
            *(_cell(sharing.writer["local"]), remote, shown(remote_against_all(sharing), 2)),
        ],
        [
            "the same; local: reading alone (less the same runs without readers)",
            *(shown(_reading_us(sharing)), remote, shown(remote_against_reading(sharing), 2)),
        ],
        [
            "one run, 40 tokens/s, 1,000 readers; for each token and reader",
            *(_cell(crowd["local"]), _cell(crowd["remote"]), shown(remote_in_crowd(sharing), 2)),
        ],
    ]


def _reading_us(sharing: Sharing) -> Number:
    """None where noise was larger."""
    difference = _us(sharing.writer["local"]) - _us(sharing.writer["unread"])
    return None if difference <= 0 else difference


def _us(run: Figures) -> float:
    return run.cpu_us_per_token if run.counts else math.nan


def _cell(run: Figures) -> str:
    return shown(_us(run)) + (" ~" if is_noisy(run) else "")
