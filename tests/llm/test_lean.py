"""The lean reader against stock ``ChatOpenAI``, over HTTP: whatever stock shows, lean shows too."""

import asyncio
import random
from collections.abc import AsyncIterator
from typing import Any

import openai
import pytest
from langchain_core.callbacks import AsyncCallbackHandler
from langchain_core.messages import HumanMessage
from langchain_core.outputs import ChatGenerationChunk
from pydantic import SecretStr

from app.llm.lean import LeanChatOpenAI
from app.llm.stock import StockChatOpenAI
from app.simulator import Simulator

pytestmark = pytest.mark.anyio

BOUND_S = 30
SCRIPTS = [
    "sim:plain,interval=0",
    "sim:tokens,n=200",
    "sim:tokens,n=0",
    "sim:tokens,n=5,usage=0",
    "sim:tokens,n=20,batch=7",
    "sim:echo x",
    "sim:awkward",
    "sim:big",
    "sim:bulk,bytes=300000",
    "sim:reasoning",
    "sim:think",
    "sim:tool",
    "sim:tool,preamble=1,calls=2",
    "sim:comments,first=0.5",
    "sim:cut,after=3,how=fin",
    "sim:cut,after=0,how=fin",
    "sim:cut,how=nohead",
    "sim:eof",
    "sim:done_only",
    "sim:noterm",
    "sim:malformed,kind=json",
    "sim:malformed,kind=shape",
    "sim:malformed,kind=utf8",
    "sim:malformed,kind=html",
    "sim:error",
    "sim:error,code=rate_limit_exceeded",
    "sim:status,code=400",
    "sim:status,code=401",
    "sim:status,code=403",
    "sim:status,code=404",
    "sim:status,code=409",
    "sim:status,code=422",
    "sim:status,code=429,retry_after=7,type=insufficient_quota",
    "sim:status,code=500",
    "sim:status,code=503",
    "sim:finish,reason=length",
    "sim:finish,reason=content_filter",
    "sim:nonsense",
]


class Recorder(AsyncCallbackHandler):
    """Every callback that a user's handler could see, without ids, which are random."""

    def __init__(self, *, inline: bool = True) -> None:
        self.run_inline = inline
        self.raise_error = True
        self.seen: list[Any] = []

    async def on_chat_model_start(self, *_: Any, **__: Any) -> None:
        self.seen.append("start")

    async def on_llm_new_token(self, token: Any, *, chunk: Any = None, **more: Any) -> None:
        assert isinstance(chunk, ChatGenerationChunk)
        assert chunk.message.id in (None, f"lc_run--{more['run_id']}")
        self.seen.append((token, bare(chunk), more["tags"]))

    async def on_llm_end(self, response: Any, **_: Any) -> None:
        self.seen.append(("end", bare(response.generations[0][0])))

    async def on_llm_error(self, error: BaseException, **_: Any) -> None:
        self.seen.append(("error", type(error)))


def bare(value: Any) -> Any:
    """A message or chunk as plain data, without its id."""
    data = value.model_dump()
    if hasattr(value, "message"):  # which is dumped as its base class, without tools and usage
        data["message"] = value.message.model_dump()
    data.get("message", data).pop("id", None)
    return data


def model(kind: type[StockChatOpenAI], url: str, **more: Any) -> StockChatOpenAI:
    if kind is StockChatOpenAI:
        more |= {"streaming": True, "stream_chunk_timeout": None}
    return kind(
        model="m",
        base_url=url,
        api_key=SecretStr("k"),
        max_retries=0,
        stream_usage=True,
        use_responses_api=False,
        **more,
    )


@pytest.fixture
async def simulator() -> AsyncIterator[Simulator]:
    async with Simulator() as running:
        yield running


@pytest.fixture(scope="module")
def cuts() -> random.Random:
    return random.Random(20261122)  # the same cuts each time, so that a failure can be repeated


async def invoked(kind: type[StockChatOpenAI], url: str, text: str, *, inline: bool) -> list[Any]:
    """Callbacks, then the final message or the error that ``ainvoke`` gave."""
    asked, recorder = model(kind, url), Recorder(inline=inline)
    try:
        async with asyncio.timeout(BOUND_S):
            message = await asked.ainvoke([HumanMessage(text)], {"callbacks": [recorder]})
    except Exception as error:  # noqa: BLE001  # every kind is compared
        return [recorder.seen, *described(error)]
    finally:
        await closed(asked)
    return [recorder.seen, bare(message)]


async def streamed(kind: type[StockChatOpenAI], url: str, text: str) -> list[Any]:
    """Chunks of ``astream``, then the error, if there was one."""
    asked = model(kind, url)
    chunks: list[Any] = []
    try:
        async with asyncio.timeout(BOUND_S):
            async for chunk in asked.astream([HumanMessage(text)]):
                chunks.append(bare(chunk))  # noqa: PERF401  # those before an error count
    except Exception as error:  # noqa: BLE001  # every kind is compared
        return [*chunks, *described(error)]
    finally:
        await closed(asked)
    return chunks


def described(error: Exception) -> list[Any]:
    status = error.status_code if isinstance(error, openai.APIStatusError) else None
    code = error.code if isinstance(error, openai.APIError) else None
    retry_after = (
        error.response.headers.get("retry-after")
        if isinstance(error, openai.APIStatusError)
        else None
    )
    return [type(error), status, code, retry_after]


async def closed(asked: StockChatOpenAI) -> None:
    if isinstance(asked, LeanChatOpenAI):
        await asked.aclose()


@pytest.mark.parametrize("script", SCRIPTS)
@pytest.mark.parametrize("inline", [True, False], ids=["inline", "gathered"])
async def test_invoking_shows_the_same_callbacks_and_gives_the_same_message_or_error(
    simulator: Simulator, cuts: random.Random, script: str, inline: bool
) -> None:
    text = with_cuts(script, cuts)
    stock = await invoked(StockChatOpenAI, simulator.url, text, inline=inline)
    lean = await invoked(LeanChatOpenAI, simulator.url, text, inline=inline)
    assert lean == stock


@pytest.mark.parametrize("script", SCRIPTS)
async def test_streaming_gives_the_same_chunks_and_errors(
    simulator: Simulator, cuts: random.Random, script: str
) -> None:
    text = with_cuts(script, cuts)
    stock = await streamed(StockChatOpenAI, simulator.url, text)
    assert await streamed(LeanChatOpenAI, simulator.url, text) == stock


class BareRecorder(Recorder):
    """Takes text without a chunk, as the gateway's own handler does."""

    takes_bare_text = True

    async def on_llm_new_token(self, token: Any, *, chunk: Any = None, **more: Any) -> None:
        if chunk is None:
            self.seen.append((token, None, more["tags"]))
        else:
            await super().on_llm_new_token(token, chunk=chunk, **more)


@pytest.mark.parametrize("script", ["sim:plain,interval=0", "sim:reasoning", "sim:tool,preamble=1"])
async def test_a_handler_that_takes_bare_text_misses_nothing_but_chunks_of_text_alone(
    simulator: Simulator, script: str
) -> None:
    every, bare_one = Recorder(), BareRecorder()
    for recorder in (every, bare_one):
        asked = model(LeanChatOpenAI, simulator.url)
        await asked.ainvoke([HumanMessage(script)], {"callbacks": [recorder]})
        await closed(asked)
    assert len(bare_one.seen) == len(every.seen)
    assert any(seen[1] is None for seen in bare_one.seen if isinstance(seen, tuple))
    for without, with_chunk in zip(bare_one.seen, every.seen, strict=True):
        if without != with_chunk:
            token, chunk, tags = with_chunk
            assert without == (token, None, tags)
            assert chunk["message"]["content"] == token
            assert not chunk["generation_info"]
            said = ("additional_kwargs", "tool_call_chunks", "usage_metadata")
            assert not any(chunk["message"][name] for name in said)


async def test_beside_a_handler_that_wants_chunks_every_handler_gets_them(
    simulator: Simulator,
) -> None:
    every, bare_one = Recorder(), BareRecorder()
    asked = model(LeanChatOpenAI, simulator.url)
    await asked.ainvoke("sim:tokens,n=3", {"callbacks": [every, bare_one]})
    await closed(asked)
    assert bare_one.seen == every.seen


def with_cuts(script: str, cuts: random.Random) -> str:
    spec, space, rest = script.partition(" ")
    if spec.startswith(("sim:status", "sim:nonsense", "sim:big", "sim:bulk")):
        return script
    return f"{spec},cutat={cuts.randint(1, 400)}{space}{rest}"


async def test_a_connection_serves_one_answer_after_the_other(simulator: Simulator) -> None:
    asked = model(LeanChatOpenAI, simulator.url)
    try:
        async with asyncio.timeout(BOUND_S):
            for _ in range(20):
                await asked.ainvoke("sim:tokens,n=3")
        assert simulator.stats.view().connections == 1
    finally:
        await closed(asked)


async def test_the_end_of_one_answer_never_disturbs_the_next_on_its_connection(
    simulator: Simulator,
) -> None:
    """A clean-up that comes late and closes a connection that already serves somebody else was
    once measured to fail a quarter of all answers."""
    asked = model(LeanChatOpenAI, simulator.url)

    async def ask_often() -> None:
        for _ in range(10):
            message = await asked.ainvoke("sim:tokens,n=5")
            assert message.text == "tok0 tok1 tok2 tok3 tok4 "

    try:
        async with asyncio.timeout(BOUND_S), asyncio.TaskGroup() as tasks:
            for _ in range(20):
                tasks.create_task(ask_often())
        assert simulator.stats.view().finished == 200
    finally:
        await closed(asked)


async def test_a_cancelled_answer_closes_its_connection_and_no_other(simulator: Simulator) -> None:
    asked = model(LeanChatOpenAI, simulator.url)
    try:
        async with asyncio.timeout(BOUND_S), asyncio.TaskGroup() as tasks:
            lasting = tasks.create_task(asked.ainvoke("sim:tokens,n=40,interval=0.01"))
            left = [tasks.create_task(asked.ainvoke("sim:silent")) for _ in range(5)]
            await simulator.until(lambda view: view.open == 6, timeout_s=BOUND_S)
            for task in left:
                task.cancel()
            await simulator.until(lambda view: view.aborted == 5, timeout_s=BOUND_S)
            assert (await lasting).text.endswith("tok39 ")
    finally:
        await closed(asked)
