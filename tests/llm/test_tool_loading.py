"""``GATEWAY_TOOLS``: every way to get it wrong, told in one line."""

import subprocess
import sys
from pathlib import Path

import pytest

from app.llm.tool_loading import load_tools
from app.settings import SettingsError

BOUND_S = 60
MODULE = """
from typing import Any
from langchain_core.tools import StructuredTool, tool

@tool
async def good(a: int) -> int:
    "Good."
    return a

@tool("good")
async def twin() -> str:
    "Of the same name."
    return ""

def plain() -> str:
    return ""

number = 1

async def run(**_: Any) -> str:
    return ""

def made(name: str, schema: Any) -> StructuredTool:
    return StructuredTool(name=name, description="x", args_schema=schema, coroutine=run)

dotted = made("a.b", {"type": "object"})
long = made("a" * 65, {"type": "object"})
no_schema = made("no_schema", {})
no_object = made("no_object", {"type": "string"})
no_reference = made("no_reference", {"type": "object", "properties": {"a": {"$ref": "#/$defs/X"}}})
no_json = made("no_json", {"type": "object", "properties": {"a": {"enum": {1}}}})
"""


@pytest.fixture
def tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_tools.py").write_text(MODULE)
    (tmp_path / "broken_tools.py").write_text("import nothing_like_that\n")
    (tmp_path / "raising_tools.py").write_text("raise SystemExit('two\\nlines')\n")
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("my_tools", "broken_tools", "raising_tools"):
        monkeypatch.delitem(sys.modules, name, raising=False)


def test_tools_are_loaded_in_order(tools: None) -> None:
    specs = ["app.llm.builtin:calculate", "my_tools:good"]
    assert [tool.name for tool in load_tools(specs)] == ["calculate", "good"]


@pytest.mark.parametrize(
    ("spec", "why"),
    [
        ("my_tools", "package.module:name"),
        ("my_tools:", "package.module:name"),
        ("my_tools:good.name", "package.module:name"),
        (".my_tools:good", "package.module:name"),
        ("no_tools:good", "there is no module no_tools"),
        ("my_tools.more:good", "there is no module my_tools.more"),
        ("broken_tools:good", "there is no module nothing_like_that"),
        ("raising_tools:good", "its import failed: SystemExit: two lines"),
        ("my_tools:best", "the module has no best"),
        ("my_tools:plain", "decorate it with @tool"),
        ("my_tools:number", "not a tool of langchain-core"),
        ("my_tools:dotted", "'a.b' is not one that models take"),
        ("my_tools:long", "is not one that models take"),
        ("my_tools:no_schema", "not one of an object"),
        ("my_tools:no_object", "not one of an object"),
        ("my_tools:no_reference", "no JSON schema"),
        ("my_tools:no_json", "no JSON schema"),
    ],
)
def test_a_tool_that_cannot_be_used_stops_the_start(tools: None, spec: str, why: str) -> None:
    with pytest.raises(SettingsError) as caught:
        load_tools([spec])
    assert str(caught.value).startswith(f"GATEWAY_TOOLS: {spec}: ")
    assert why in str(caught.value)
    assert "\n" not in str(caught.value)


def test_two_tools_of_one_name_stop_the_start(tools: None) -> None:
    with pytest.raises(SettingsError, match="my_tools:twin: there are two tools named good"):
        load_tools(["my_tools:good", "my_tools:twin"])


def test_a_module_of_the_working_directory_is_found(tmp_path: Path) -> None:
    """As ``python -m app`` would: ``-m`` puts the working directory on the path."""
    (tmp_path / "my_tools.py").write_text(MODULE)
    (tmp_path / "main.py").write_text(
        "from app.llm.tool_loading import load_tools\nprint(load_tools(['my_tools:good'])[0].name)"
    )
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-m", "main"],
        cwd=tmp_path,
        env={"PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
        check=True,
        timeout=BOUND_S,
    )
    assert done.stdout == "good\n"
