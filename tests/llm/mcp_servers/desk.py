"""An MCP server of the Python SDK: ``desk.py NOTES [PORT]``, over stdio without a port.

What happens in it is written to the file NOTES, a line each.
"""

import asyncio
import os
import sys
from pathlib import Path

from mcp.server.fastmcp import FastMCP

NOTES = Path(sys.argv[1])
PORT = int(sys.argv[2]) if len(sys.argv) > 2 else None
desk = FastMCP("desk", port=PORT or 0)


def note(line: str) -> None:
    with NOTES.open("a") as notes:
        notes.write(line + "\n")


@desk.tool()
def add(a: int, b: int) -> int:
    """The sum."""
    return a + b


@desk.tool()
def fail() -> str:
    """Fails."""
    raise ValueError("the desk is on fire")


@desk.tool()
def echo(config: str, run_manager: str = "") -> str:
    """What it was told, by names that LangChain has other uses for."""
    return config + run_manager


@desk.tool()
def secret(name: str) -> str:
    """A variable of the server's environment."""
    return os.environ.get(name, "not set")


@desk.tool()
async def sleep(seconds: float) -> str:
    """Sleeps, and notes how that ended."""
    note("sleeps")
    try:
        await asyncio.sleep(seconds)
    except asyncio.CancelledError:
        note("cancelled")
        raise
    note("slept")
    return "slept"


@desk.tool()
def bad() -> str:
    """A tool whose schema is none."""
    return ""


@desk.tool(name="dotted.name")
def dotted() -> str:
    """A tool whose name models do not take."""
    return ""


if __name__ == "__main__":
    desk._tool_manager._tools["bad"].parameters = {"type": "object", "properties": {"a": 3}}
    note(f"pid {os.getpid()}")
    print("the desk opens\x1b[2J", file=sys.stderr, flush=True)  # noqa: T201  # for the log
    desk.run("stdio" if PORT is None else "streamable-http")
