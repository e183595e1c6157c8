"""The machine: which core does what, how many files may be open, and what the report says of it."""

import os
import platform
import resource
import subprocess
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

ROOT = Path(__file__).parents[2]
HOME = ROOT / ".bench"  # results, logs, and what peers need


@dataclass(frozen=True)
class Cores:
    """The target has one to itself where there are two; upstream and load share the other."""

    target: int
    load: int

    @classmethod
    def of_this_machine(cls) -> "Cores":
        usable = sorted(os.sched_getaffinity(0))
        return cls(usable[0], usable[-1])


@dataclass(frozen=True)
class Machine:
    date: str
    cpu: str
    cores: int
    kernel: str
    python: str
    commit: str  # of this tree, "+" behind it when files were changed since


def describe() -> Machine:
    return Machine(
        date=datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z"),
        cpu=_cpu_model(),
        cores=len(os.sched_getaffinity(0)),
        kernel=platform.release(),
        python=platform.python_version(),
        commit=_git("rev-parse", "--short", "HEAD") + ("+" if _git("status", "--short") else ""),
    )


def raise_file_limit() -> None:
    """To what the kernel allows without asking; inherited by every process started after it."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()  # ARM kernels name none


def _git(*arguments: str) -> str:
    """Nothing where there is no git: a tarball has no commit."""
    try:
        done = subprocess.run(
            ["git", "-C", str(ROOT), *arguments], capture_output=True, text=True, check=False
        )
    except OSError:
        return ""
    return done.stdout.strip()
