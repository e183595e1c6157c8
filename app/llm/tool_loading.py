"""``GATEWAY_TOOLS``: the tools that a user wrote, imported and looked at before anybody calls."""

import json
import re
from collections.abc import Sequence
from importlib import import_module
from typing import Any

from langchain_core.tools import BaseTool
from langchain_core.utils.function_calling import convert_to_openai_tool

from app.settings import SettingsError

NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")  # what OpenAI's API takes


def load_tools(specs: Sequence[str]) -> list[BaseTool]:
    """The tools that ``package.module:name`` stand for. Raises ``SettingsError``."""
    tools: dict[str, BaseTool] = {}
    for spec in specs:
        try:
            tool = _load(spec)
            check_tool(tool)
        except ValueError as error:
            raise SettingsError(f"GATEWAY_TOOLS: {spec}: {error}") from None
        if tool.name in tools:
            raise SettingsError(f"GATEWAY_TOOLS: {spec}: there are two tools named {tool.name}")
        tools[tool.name] = tool
    return list(tools.values())


def check_tool(tool: BaseTool) -> None:
    """Raises ``ValueError`` where a model could not be told of this tool, and says why."""
    if not NAME.fullmatch(tool.name):
        raise ValueError(
            f"the name {tool.name[:80]!r} is not one that models take: "
            "it takes 1 to 64 of A-Z a-z 0-9 _ -"
        )
    try:
        schema = convert_to_openai_tool(tool)
        json.dumps(schema)
    except Exception as error:  # noqa: BLE001  # a schema is somebody's code
        raise ValueError(f"its arguments have no JSON schema: {_line(error)}") from None
    if "function" not in schema or schema["function"].get("parameters", {}).get("type") != "object":
        raise ValueError("its arguments' JSON schema is not one of an object")


def _load(spec: str) -> BaseTool:
    module, separator, name = spec.partition(":")
    if not separator or not all(part.isidentifier() for part in (*module.split("."), name)):
        raise ValueError("it takes package.module:name")
    try:
        found: Any = getattr(import_module(module), name)
    except ModuleNotFoundError as error:
        raise ValueError(f"there is no module {error.name}") from None
    except AttributeError as error:
        if getattr(error, "name", None) == name:
            raise ValueError(f"the module has no {name}") from None
        raise ValueError(f"its import failed: {_line(error)}") from None
    except (Exception, SystemExit) as error:  # noqa: BLE001  # an import runs somebody's code
        raise ValueError(f"its import failed: {_line(error)}") from None
    if isinstance(found, BaseTool):
        return found
    if callable(found):
        hint = "it is a function: decorate it with @tool of langchain_core.tools"
        raise ValueError(hint)  # noqa: TRY004  # as every refusal here
    raise ValueError("it is not a tool of langchain-core")


def _line(error: BaseException) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:300]
