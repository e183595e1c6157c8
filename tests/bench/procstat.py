"""CPU and memory of processes, and how busy a core is; Linux only."""

import os
import time
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

_TICK_S = 1 / os.sysconf("SC_CLK_TCK")
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_PROC = Path("/proc")


def tree(root: int) -> list[int]:
    """A process and all its living descendants."""
    children = defaultdict(list)
    for folder in _PROC.iterdir():
        if folder.name.isdigit():
            try:
                stat = (folder / "stat").read_text()
            except OSError:  # ended since
                continue
            parent = int(stat.rpartition(")")[2].split()[1])
            children[parent].append(int(folder.name))
    found = [root]
    for pid in found:  # grows while it is walked
        found += children[pid]
    return found


def cpu_s(pids: Iterable[int]) -> float:
    """User and system time of all their threads, to the nanosecond: ``/proc/*/stat`` counts 10 ms,
    which is a third of what some figures are about."""
    total = 0.0
    for pid in pids:
        try:
            total += time.clock_gettime(~pid << 3 | 2)  # clock_getcpuclockid(3)
        except OSError:  # ended
            continue
    return total


def rss_bytes(pids: Iterable[int]) -> int:
    total = 0
    for pid in pids:
        try:
            total += int((_PROC / str(pid) / "statm").read_text().split()[1])
        except OSError:  # ended
            continue
    return total * _PAGE_BYTES


def busy_s(core: int) -> float:
    """Seconds since boot in which the core was not idle, whoever used it; what the hypervisor took
    away is in it too."""
    for line in (_PROC / "stat").read_text().splitlines():
        name, *ticks = line.split()
        if name == f"cpu{core}":
            user, nice, system, _, _, irq, softirq, steal = map(int, ticks[:8])
            return (user + nice + system + irq + softirq + steal) * _TICK_S
    raise LookupError(f"the kernel counts no core {core}")
