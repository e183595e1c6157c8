"""``GATEWAY_TOOLS`` that cannot be: the gateway says so in one line and does not start."""

import shutil
from pathlib import Path

import pytest

from tests.live.several import refused

BAD = {
    "no module": ("nosuchmodule:tool", "no module nosuchmodule"),
    "no attribute": ("mytools:nothing", "the module has no nothing"),
    "no tool": ("mytools:both", "it is not a tool of langchain-core"),
    "a bare function": ("mytools:undecorated", "decorate it with @tool"),
    "an invalid schema": ("mytools:odd", "no JSON schema"),
}


@pytest.mark.parametrize(("tools", "says"), BAD.values(), ids=BAD)
def test_a_tool_that_cannot_be_stops_the_start(tools: str, says: str, tmp_path: Path) -> None:
    shutil.copy(Path(__file__).with_name("mytools.py"), tmp_path)

    line = refused(tmp_path, tools=tools)

    assert line.startswith("gateway: GATEWAY_TOOLS: ")
    assert says in line
