"""An MCP server whose tools change: ``changing.py NOTES [PORT]``, over stdio without a port.

It notes each list of its tools.
"""

import sys
from pathlib import Path

from mcp.server.fastmcp import Context, FastMCP
from mcp.types import CallToolResult, Tool

NOTES = Path(sys.argv[1])
PORT = int(sys.argv[2]) if len(sys.argv) > 2 else None


def note(line: str) -> None:
    with NOTES.open("a") as notes:
        notes.write(line + "\n")


class Changing(FastMCP):
    async def list_tools(self) -> list[Tool]:
        note("listed")
        return await super().list_tools()


changing = Changing("changing", port=PORT or 0)


def nothing() -> CallToolResult:
    """No text."""
    return CallToolResult(content=[], structuredContent={"city": "Zürich"})


@changing.tool()
async def change(context: Context, times: int = 1) -> str:  # type: ignore[type-arg]  # any
    """Has tools ``new_1`` to ``new_<times>`` then, told one by one, in place of ``old``."""
    changing._tool_manager._tools.pop("old", None)
    for number in range(1, times + 1):
        changing.add_tool(nothing, name=f"new_{number}")
        await context.session.send_tool_list_changed()
    return "changed"


changing.add_tool(nothing, name="old")

if __name__ == "__main__":
    changing.run("stdio" if PORT is None else "streamable-http")
