"""Tools as a user would write them, for a gateway that runs in this file's copy's folder.

What happens in them is written to the file ``notes`` there, a line each.
"""

import asyncio
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from langchain_core.tools import BaseTool, tool

both = asyncio.Barrier(2)


def note(line: str) -> None:
    with Path("notes").open("a") as notes:
        notes.write(f"{line}\n")


@tool
async def linger(name: str) -> str:
    """Takes a minute."""
    note(f"{name} began")
    try:
        await asyncio.sleep(60)
    except asyncio.CancelledError:
        note(f"{name} cancelled")
        raise
    return "over"


@tool
async def spawn(name: str) -> str:
    """A process that takes a minute."""
    process = await asyncio.create_subprocess_exec("sleep", "60")
    note(f"{name} pid {process.pid}")
    try:
        await process.wait()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    return "over"


@tool
async def meet(name: str) -> str:
    """Ends once there are two of it."""
    async with asyncio.timeout(20):
        await both.wait()
    return f"{name} met another"


@tool
def fail() -> str:
    """Fails."""
    raise RuntimeError("SECRET-OF-THE-TOOL")


@tool
async def leave() -> str:
    """Tries to take the gateway along."""
    sys.exit(3)


class Panic(BaseException):
    """As Rust's panics arrive in Python."""


@tool
def panic() -> str:
    """Panics."""
    raise Panic


@tool
async def stay(name: str) -> str:
    """Takes a minute, whatever it is told."""
    note(f"{name} began")
    for _ in range(60):
        with suppress(asyncio.CancelledError):
            await asyncio.sleep(1)
    return "over"


@tool
def huge(unit: str) -> str:
    """Returns 200 KiB."""
    return unit * (200 * 1024 // len(unit.encode()))


@tool
def block(seconds: float) -> str:
    """Blocks its thread."""
    time.sleep(seconds)
    return f"blocked for {seconds} s"


class Odd(BaseTool):
    """Its schema has no JSON."""

    name: str = "odd"
    description: str = "Odd."
    args_schema: Any = {"type": "object", "properties": {"a": {"default": object()}}}  # noqa: RUF012  # pydantic copies it

    def _run(self) -> str:
        return ""


odd = Odd()


def undecorated() -> str:
    return ""
