"""A conversation outlives its gateways; what the model sees of a long one is bounded."""

import asyncio
import re
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.live.asking import ask, marker
from tests.live.conversations.talking import Shown, conversation_of, messages, regenerate, told
from tests.live.servers import Gateway, SimulatorProcess
from tests.postgres import Postgres

pytestmark = pytest.mark.anyio

TOOLS = "app.llm.builtin:current_time,app.llm.builtin:calculate"
TURNS = 10
TIME = re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d[^\"\s;]*")


def question(turn: int) -> str:
    if turn % 3 == 0:
        return "sim:tool,name=current_time,args={}"
    return (
        f'sim:tool,name=calculate,args={{"expression":"{turn}*7"}},calls={turn % 2 + 1},preamble=1'
    )


async def conversation(
    start_gateway: Callable[..., Gateway], mark: str, **settings: Any
) -> list[Shown]:
    """Two turns with each gateway, which is then told to end."""
    id_: str | None = None
    for turn in range(TURNS):
        if turn % 2 == 0:
            gateway = await asyncio.to_thread(
                start_gateway, tools=TOOLS, history_messages=100, **settings
            )
        answer = await ask(gateway, f"{question(turn)} {mark}", conversation_id=id_)
        assert answer.one("done")["status"] == "completed"
        id_ = conversation_of(answer)
        if turn % 2 and turn < TURNS - 1:
            gateway.signal(signal.SIGTERM)
            assert await asyncio.to_thread(gateway.wait) == 0
    return await messages(gateway, id_ or "")


def normal(found: list[Shown]) -> list[Shown]:
    """What must be the same in both databases: ids are numbered by when they came first."""
    numbers: dict[str, str] = {}
    kept = []
    for message in found:
        ids = {
            name: message[name] and numbers.setdefault(message[name], f"id{len(numbers)}")
            for name in ("id", "parent_id", "run_id")
        }
        texts = TIME.sub("TIME", str([message["text"], message["tool_results"]]))
        kept.append({**message, **ids, "texts": texts})
        for name in ("text", "tool_results", "created_at", "usage"):
            del kept[-1][name]
    return kept


async def test_ten_turns_with_tools_and_restarts_are_the_same_in_both_databases(
    start_gateway: Callable[..., Gateway],
    simulator: SimulatorProcess,
    postgres: Postgres,
    tmp_path: Path,
) -> None:
    marks = [marker(), marker()]
    one, other = await asyncio.gather(
        conversation(start_gateway, marks[0], data_dir=tmp_path),
        conversation(start_gateway, marks[1], database_url=postgres.database()),
    )
    assert len(one) == 2 * TURNS
    for turn, (asked, answered) in enumerate(zip(one[::2], one[1::2], strict=True)):
        assert asked["text"] == f"{question(turn)} {marks[0]}"
        calls, results = answered["tool_calls"], answered["tool_results"]
        assert len(calls) == len(results) == (1 if turn % 3 == 0 else turn % 2 + 1)
        assert [call["id"] for call in calls] == [result["id"] for result in results]
        if turn % 3:
            assert {result["content"] for result in results} == {str(turn * 7)}
            assert not any(result["is_error"] for result in results)
            assert answered["text"].startswith(f"The tool says: {turn * 7}")
    for message in one:
        message["text"] = message["text"].replace(marks[0], marks[1])
    assert normal(one) == normal(other)

    roles = [role for role, _ in await told(simulator, marks[0])]
    assert roles.count("user") == TURNS
    assert roles.count("tool") == sum(len(message["tool_results"]) for message in one)


async def test_the_model_never_gets_more_messages_than_the_setting_says(
    start_gateway: Callable[..., Gateway], simulator: SimulatorProcess
) -> None:
    gateway = start_gateway(history_messages=4, tools=TOOLS)
    mark = marker()
    id_ = None
    for turn in range(6):
        answer = await ask(gateway, f"sim:tokens,n=1 {mark} {turn}", conversation_id=id_)
        id_ = conversation_of(answer)
    ends = [("user", f"sim:tokens,n=1 {mark} 4"), ("assistant", "tok0 ")]
    last = ("user", f"sim:tokens,n=1 {mark} 5")
    assert await told(simulator, mark) == [*ends, last]
    await regenerate(gateway, id_ or "")
    assert await told(simulator, mark) == [*ends, last]
    edited = (await messages(gateway, id_ or ""))[10]["id"]
    other = f"sim:tokens,n=1 {mark} other"
    await ask(gateway, other, conversation_id=id_, parent_message_id=edited)
    assert await told(simulator, mark) == [*ends, ("user", other)]

    with_tool = f"{question(1)} {mark}"  # five messages: two calls, their results, the answer
    await ask(gateway, with_tool, conversation_id=id_)
    await ask(gateway, other, conversation_id=id_)
    said = [("user", with_tool), ("assistant", "The tool says: 7; 7")]  # all that fits of it
    assert await told(simulator, mark) == [*said, ("user", other)]
