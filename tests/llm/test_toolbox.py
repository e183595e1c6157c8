"""Calls of tools: what the model is told, and that nothing holds its run."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Annotated, Any

import pytest
from langchain_core.tools import (
    BaseTool,
    InjectedToolArg,
    InjectedToolCallId,
    StructuredTool,
    ToolException,
    tool,
)
from pydantic import BaseModel

from app.llm import toolbox as module
from app.llm.toolbox import Outcome, Toolbox

pytestmark = pytest.mark.anyio

BOUND_S = 10


def made(function: Callable[..., Awaitable[Any]], **options: Any) -> BaseTool:
    return StructuredTool.from_function(coroutine=function, name="it", description="It.", **options)


async def outcome(
    function: Callable[..., Awaitable[Any]], arguments: str = "{}", **options: Any
) -> Outcome:
    async with asyncio.timeout(BOUND_S):
        return await Toolbox([made(function)], **options).call("it", arguments, "call_1")


@tool
async def add(a: int, b: int = 1) -> int:
    """The sum of two numbers."""
    return a + b


async def test_a_tool_gets_its_arguments_and_answers_with_text() -> None:
    assert await Toolbox([add]).call("add", '{"a": 2, "b": 3}', "c") == ("5", False)
    assert await Toolbox([add]).call("add", '{"a": "2"}', "c") == ("3", False)


async def test_a_tool_that_is_not_there_is_an_error() -> None:
    content, is_error = await Toolbox([add]).call("subtract", "{}", "c")
    assert "'subtract' is not available now" in content
    assert is_error


@pytest.mark.parametrize(
    "arguments",
    [
        *('{"a": 1', "[1]", "null", "1", '{"a": NaN}', '{"a": 1} x', "[" * 100_000),
        *('{"a": "\\ud83d"}', "\ud83d", '{"a": ' + "9" * 5000 + "}"),
    ],
)
async def test_arguments_that_are_no_json_object_are_told_to_the_model(arguments: str) -> None:
    content, is_error = await Toolbox([add]).call("add", arguments, "c")
    assert "not a JSON object" in content
    assert len(content) < 300
    assert is_error


@pytest.mark.parametrize("arguments", ["", " ", "{}"])
async def test_no_arguments_are_an_empty_object(arguments: str) -> None:
    async def ping() -> str:
        return "pong"

    assert await outcome(ping, arguments) == ("pong", False)


async def test_arguments_that_do_not_fit_are_told_in_one_short_line() -> None:
    content, is_error = await Toolbox([add]).call("add", '{"b": "x"}', "c")
    assert is_error
    assert content.startswith("the arguments do not fit: a: Field required; b: Input should be")
    assert "pydantic" not in content


async def test_a_long_list_of_mistakes_is_cut() -> None:
    async def total(numbers: list[int]) -> int:
        return sum(numbers)

    content, _ = await outcome(total, json.dumps({"numbers": ["x"] * 1000}))
    assert content.endswith("; and 995 more")


async def test_what_a_tool_says_with_a_tool_exception_is_for_the_model() -> None:
    async def refuse() -> str:
        raise ToolException("ask for a smaller one")

    assert await outcome(refuse) == ("ask for a smaller one", True)


class Row(BaseModel):
    secret: int


@pytest.mark.parametrize(
    "error",
    [RuntimeError("key sk-1 in /etc/x"), StopIteration("sk-1"), TimeoutError()],
)
async def test_of_any_other_exception_the_log_says_where_and_which_without_its_words(
    error: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    async def explode() -> str:
        raise error

    assert await outcome(explode) == ("the tool failed", True)
    assert "in explode" in caplog.text
    assert type(error).__name__ in caplog.text
    assert "sk-1" not in caplog.text


async def test_a_validation_error_of_the_tools_own_stays_in_the_log() -> None:
    async def explode() -> str:
        return str(Row.model_validate({"secret": "sk-1"}))

    assert await outcome(explode) == ("the tool failed", True)


async def test_a_tool_that_cancels_itself_failed() -> None:
    async def give_up() -> str:
        raise asyncio.CancelledError

    assert await outcome(give_up) == ("the tool failed", True)


@pytest.mark.parametrize(
    ("result", "content"),
    [
        ("", ""),
        (None, "null"),
        ({"ä": [1]}, '{"ä": [1]}'),
        ("a\ud83d", "a�"),
        ("\ud83d\ude00", "😀"),
        ([{"type": "text", "text": "a"}, {"type": "text", "text": "b"}], "a\nb"),
        (
            [{"type": "text", "text": "a"}, {"type": "image_url", "image_url": {"url": "x:"}}],
            'a\n{"type": "image_url", "image_url": {"url": "x:"}}',
        ),
    ],
)
async def test_any_result_becomes_text(result: Any, content: str) -> None:
    async def give() -> Any:
        return result

    assert await outcome(give) == (content, False)


async def test_the_artifact_of_a_result_is_not_for_the_model() -> None:
    async def look() -> tuple[str, Any]:
        return "seen", {"raw": 1}

    look_tool = made(look, response_format="content_and_artifact")
    assert await Toolbox([look_tool]).call("it", "", "c") == ("seen", False)


async def test_an_error_that_the_tool_handles_itself_is_an_error() -> None:
    async def refuse() -> str:
        raise ToolException("no")

    refusing = made(refuse, handle_tool_error=lambda error: f"handled {error}")
    assert await Toolbox([refusing]).call("it", "", "c") == ("handled no", True)


@pytest.mark.parametrize("character", ["x", "ä", "😀"])
async def test_a_long_result_is_cut_between_characters_and_says_so(character: str) -> None:
    text = "." + character * 1000

    async def talk() -> str:
        return text

    content, is_error = await outcome(talk, output_bytes=500)
    kept, mark = content.split("\n")
    assert text.startswith(kept)
    assert mark == f"[cut: {len(text.encode()) - len(kept.encode())} bytes more]"
    assert 400 < len(content.encode()) <= 500
    assert not is_error


async def test_a_result_of_just_the_limit_is_whole() -> None:
    async def talk() -> str:
        return "x" * 500

    assert await outcome(talk, output_bytes=500) == ("x" * 500, False)


async def test_injected_arguments_are_the_gateways_not_the_models() -> None:
    async def who(
        call: Annotated[str, InjectedToolCallId], user: Annotated[str, InjectedToolArg] = "nobody"
    ) -> str:
        return f"{call} {user}"

    assert await outcome(who, '{"user": "root", "call": "forged"}') == ("call_1 nobody", False)


async def test_schemas_are_openais() -> None:
    schema = {
        "name": "add",
        "description": "The sum of two numbers.",
        "parameters": {
            "type": "object",
            "properties": {"a": {"type": "integer"}, "b": {"type": "integer", "default": 1}},
            "required": ["a"],
        },
    }
    toolbox = Toolbox([add])
    assert toolbox.schemas(["add", "gone"]) == [{"type": "function", "function": schema}]


async def test_tools_of_a_source_come_and_go(caplog: pytest.LogCaptureFixture) -> None:
    async def other() -> str:
        return "other"

    it = made(other)
    toolbox = Toolbox([add])
    toolbox.put("a", [it])
    toolbox.put("b", [])
    assert toolbox.names == ["add", "it"]
    assert toolbox.schemas(["it"])[0]["function"]["parameters"]["properties"] == {}
    toolbox.put("b", [it, add])
    assert "two tools named add: that of b is left out" in caplog.text
    toolbox.put("a", [])
    assert toolbox.names == ["add"]
    assert not toolbox.has("it")
    toolbox.put("a", [made(other, args_schema={"type": "object", "properties": {"new": {}}})])
    (schema,) = toolbox.schemas(["it"])
    assert schema["function"]["parameters"]["properties"] == {"new": {}}


async def test_nothing_is_printed_or_traced(capsys: pytest.CaptureFixture[str]) -> None:
    await Toolbox([add]).call("add", '{"a": 1}', "c")
    assert capsys.readouterr() == ("", "")


def test_the_defaults_are_those_of_the_readme() -> None:
    assert (module.TOOL_TIMEOUT_S, module.OUTPUT_BYTES) == (30, 65_536)
