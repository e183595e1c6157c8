"""The lean reader's connections: whose proxy they take, and what a proxy gets."""

import asyncio
import json
from collections.abc import Mapping

import openai
import pytest

from app.environment import load
from app.events.queue import EventQueue
from app.llm.connections import environment_proxy
from app.llm.langchain import LangChainReader
from app.llm.lean import LeanChatOpenAI
from app.llm.toolbox import Toolbox
from tests.llm.asking import chat_model
from tests.llm.making import entry, prompt
from tests.llm.test_lean import closed, model

pytestmark = pytest.mark.anyio

BOUND_S = 30
NAMES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")


@pytest.mark.parametrize(
    ("variables", "proxy", "headers"),
    [
        ({}, None, {}),
        ({"https_proxy": "http://p:3128"}, "http://p:3128", {}),
        ({"HTTPS_PROXY": "http://p:3128"}, "http://p:3128", {}),
        ({"https_proxy": "p:3128"}, "http://p:3128", {}),
        ({"all_proxy": "http://p:3128"}, "http://p:3128", {}),
        ({"http_proxy": "http://p:3128"}, None, {}),  # for other addresses
        ({"https_proxy": "http://p:3128", "no_proxy": "model.example"}, None, {}),
        ({"https_proxy": "http://p:3128", "no_proxy": ".example"}, None, {}),
        ({"https_proxy": "http://p:3128", "no_proxy": "*"}, None, {}),
        ({"https_proxy": "http://p:3128", "no_proxy": "model.example:8443"}, None, {}),
        ({"https_proxy": "http://p:3128", "no_proxy": "model.example:9"}, "http://p:3128", {}),
        ({"https_proxy": "http://p:3128", "no_proxy": "https://model.example"}, None, {}),
        ({"https_proxy": "http://p:3128", "no_proxy": "other.example"}, "http://p:3128", {}),
        (
            {"https_proxy": "http://me:s%C3%A9cret@p:3128"},
            "http://p:3128",
            {"proxy-authorization": "Basic bWU6c8OpY3JldA=="},
        ),
    ],
)
def test_the_environment_names_the_proxy_as_it_does_for_other_programs(
    monkeypatch: pytest.MonkeyPatch,
    variables: Mapping[str, str],
    proxy: str | None,
    headers: Mapping[str, str],
) -> None:
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    found, sent = environment_proxy("https://model.example:8443/v1/chat/completions")
    assert (str(found) if found else None, sent) == (proxy, headers)


@pytest.mark.parametrize("trusted", [True, False])
async def test_a_proxy_gets_the_request_and_its_login_only_where_the_environment_is_trusted(
    monkeypatch: pytest.MonkeyPatch, trusted: bool
) -> None:
    heads: asyncio.Queue[bytes] = asyncio.Queue()

    async def listening(inbox: asyncio.StreamReader, outbox: asyncio.StreamWriter) -> None:
        heads.put_nowait(await inbox.readuntil(b"\r\n\r\n"))
        outbox.write(b"HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
        await outbox.drain()
        outbox.close()
        await outbox.wait_closed()

    async with (
        asyncio.timeout(BOUND_S),
        await asyncio.start_server(listening, "127.0.0.1", 0) as proxy,
        await asyncio.start_server(listening, "127.0.0.1", 0) as upstream,
    ):
        port = proxy.sockets[0].getsockname()[1]
        for name in NAMES:
            monkeypatch.delenv(name, raising=False)
            monkeypatch.delenv(name.upper(), raising=False)
        monkeypatch.setenv("http_proxy", f"http://me:secret@127.0.0.1:{port}")
        asked_port = upstream.sockets[0].getsockname()[1]
        asked = model(LeanChatOpenAI, f"http://127.0.0.1:{asked_port}/v1", trust_env=trusted)
        with pytest.raises(Exception, match="403"):
            await asked.ainvoke("hello")
        await closed(asked)
        head = (await heads.get()).decode().lower()
    target = f"http://127.0.0.1:{asked_port}" if trusted else ""
    assert head.startswith(f"post {target}/v1/chat/completions http/1.1\r\n")
    assert ("proxy-authorization: basic bwu6c2vjcmv0\r\n" in head) is trusted


async def test_a_refusal_that_comes_in_pieces_is_read_whole() -> None:
    body = json.dumps({"error": {"code": "insufficient_quota", "message": "No money."}}).encode()

    async def refusing(inbox: asyncio.StreamReader, outbox: asyncio.StreamWriter) -> None:
        await inbox.readuntil(b"\r\n\r\n")
        head = f"HTTP/1.1 429 No\r\ncontent-length: {len(body)}\r\nconnection: close\r\n\r\n"
        for piece in (head.encode(), body[:9]):
            outbox.write(piece)
            await asyncio.sleep(0.02)
        outbox.write(body[9:])
        outbox.close()
        await outbox.wait_closed()

    async with (
        asyncio.timeout(BOUND_S),
        await asyncio.start_server(refusing, "127.0.0.1") as server,
    ):
        asked = model(LeanChatOpenAI, f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1")
        with pytest.raises(openai.RateLimitError) as caught:
            await asked.ainvoke("hello")
        await closed(asked)
    assert caught.value.code == "insufficient_quota"


async def test_a_flood_of_events_that_say_nothing_lets_others_run() -> None:
    nothing = b'data: {"choices":[{"index":0,"delta":null}]}\n\n' * 20_000

    async def flooding(inbox: asyncio.StreamReader, outbox: asyncio.StreamWriter) -> None:
        await inbox.readuntil(b"\r\n\r\n")
        outbox.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n" + nothing)
        outbox.write(b'data: {"choices":[{"delta":{},"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n')
        await outbox.drain()
        outbox.close()
        await outbox.wait_closed()

    passes = 0

    async def others() -> None:
        nonlocal passes
        while True:
            await asyncio.sleep(0)
            passes += 1

    async with (
        asyncio.timeout(BOUND_S),
        await asyncio.start_server(flooding, "127.0.0.1") as server,
        asyncio.TaskGroup() as tasks,
    ):
        watching = tasks.create_task(others())
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
        asked = entry(base_url=url)
        chat = chat_model(lambda: LangChainReader(load({}), None, Toolbox()), asked)
        await chat.load()
        passes = 0
        assert await chat.answer(chat.reply(prompt(entry=asked), EventQueue())) == "stop"
        assert passes > 100  # one for each share of half a millisecond; 8 without
        watching.cancel()
        await chat.aclose()
