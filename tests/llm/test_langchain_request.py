"""What the real reader sends, and what it makes of fields that servers disagree about."""

import asyncio
import json
from typing import Any

import pytest
from langchain_core.messages import HumanMessage

from app.environment import load
from app.errors import UpstreamBroken
from app.events.model import Event, Reasoning
from app.events.queue import EventQueue
from app.llm.langchain import LangChainReader
from app.llm.toolbox import Toolbox
from tests.llm.asking import chat_model
from tests.llm.making import entry, prompt

pytestmark = pytest.mark.anyio

BOUND_S = 30
PLAIN = {"delta": {"content": "a"}, "finish_reason": "stop"}


class Recorder:
    """An upstream that keeps the bodies it got and answers each with the same chunk."""

    def __init__(self, choice: dict[str, Any]) -> None:
        self.bodies: list[dict[str, Any]] = []
        self._choice = choice

    async def __call__(self, inbox: asyncio.StreamReader, outbox: asyncio.StreamWriter) -> None:
        head = (await inbox.readuntil(b"\r\n\r\n")).decode().lower()
        size = int(head.partition("content-length: ")[2].partition("\r\n")[0])
        self.bodies.append(json.loads(await inbox.readexactly(size)))
        chunk = {"id": "1", "object": "chat.completion.chunk", "created": 1, "model": "m"}
        data = json.dumps({**chunk, "choices": [{"index": 0, **self._choice}]})
        outbox.write(
            b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n"
            + f"data: {data}\n\ndata: [DONE]\n\n".encode()
        )
        await outbox.drain()
        outbox.close()
        await outbox.wait_closed()


async def asked(
    choice: dict[str, Any], **parameters: Any
) -> tuple[str, list[Event], dict[str, Any]]:
    """Finish reason, events and the request's body. Raises what ``ChatModel`` does."""
    recorder, queue = Recorder(choice), EventQueue()
    server = await asyncio.start_server(recorder, "127.0.0.1", 0)
    async with asyncio.timeout(BOUND_S), server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
        server_entry = entry("some-model", base_url=url)
        model = chat_model(lambda: LangChainReader(load({}), None, Toolbox()), server_entry)
        await model.load()
        try:
            what = prompt("What?", entry=server_entry, parameters=parameters)
            reason = await model.answer(model.reply(what, queue))
        finally:
            await model.aclose()
        queue.close()
        return reason, await queue.take(), recorder.bodies[0]


async def test_parameters_go_to_the_upstream_under_the_names_that_all_servers_know() -> None:
    parameters = {"temperature": 0.5, "top_p": 0.9, "max_tokens": 7, "stop": ["x"], "seed": 3}
    reason, _, body = await asked(PLAIN, **parameters)
    assert {name: body.get(name) for name in parameters} == parameters
    assert "max_completion_tokens" not in body
    assert body["messages"] == [{"role": "user", "content": "What?"}]
    assert (body["model"], body["stream"]) == ("some-model", True)
    assert body["stream_options"] == {"include_usage": True}
    assert reason == "stop"


async def test_nothing_is_sent_that_was_not_asked_for() -> None:
    _, _, body = await asked(PLAIN)
    assert set(body) == {"messages", "model", "stream", "stream_options"}


async def test_openai_itself_gets_max_tokens_under_its_new_name() -> None:
    reader = LangChainReader(load({}), None, Toolbox())
    payload = reader.model(entry(api_key="k"))._get_request_payload(
        [HumanMessage("x")], max_tokens=7
    )
    await reader.aclose()
    assert payload["max_completion_tokens"] == 7
    assert "max_tokens" not in payload


@pytest.mark.parametrize("field", ["reasoning_content", "reasoning"])
async def test_reasoning_is_read_under_both_names_in_use(field: str) -> None:
    _, events, _ = await asked({"delta": {field: "why"}, "finish_reason": "stop"})
    assert events == [Reasoning("why")]


@pytest.mark.parametrize("reason", [7, {"type": "stop"}, ["stop"], True])
async def test_a_finish_reason_that_is_no_text_is_none(reason: object) -> None:
    with pytest.raises(UpstreamBroken):
        await asked({"delta": {"content": "a"}, "finish_reason": reason})


@pytest.mark.parametrize("field", ["reasoning_content", "reasoning"])
async def test_reasoning_that_is_no_text_is_left_out(field: str) -> None:
    reason, events, _ = await asked({**PLAIN, "delta": {field: {"why": 1}}})
    assert (reason, events) == ("stop", [])


@pytest.mark.parametrize("delta", [{"content": 7}, {"content": {"a": 1}}, {"role": 7}, [], "x", 7])
async def test_a_delta_of_the_wrong_shape_is_a_broken_answer(delta: object) -> None:
    with pytest.raises(UpstreamBroken):
        await asked({"delta": delta, "finish_reason": None})
