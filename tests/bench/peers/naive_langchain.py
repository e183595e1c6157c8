"""The way that guides show: ``ChatOpenAI``, a callback that fills a queue, ``StreamingResponse``.

Kinder than most of them in one thing: all requests for a model share one ``ChatOpenAI``. As unkind
to text: a token with a newline breaks its frame.
"""

import asyncio
from collections.abc import AsyncIterator
from functools import lru_cache
from typing import Any

from fastapi import FastAPI
from fastapi.responses import StreamingResponse
from langchain_core.callbacks import AsyncCallbackHandler
from langchain_core.outputs import LLMResult
from langchain_openai import ChatOpenAI
from pydantic import BaseModel

app = FastAPI()


class Ask(BaseModel):
    model: str
    message: str


class QueueHandler(AsyncCallbackHandler):
    def __init__(self) -> None:
        self._queue: asyncio.Queue[str] = asyncio.Queue()
        self._done = asyncio.Event()

    async def on_llm_new_token(self, token: Any, **kwargs: Any) -> None:
        if token:
            self._queue.put_nowait(token)

    async def on_llm_end(self, response: LLMResult, **kwargs: Any) -> None:
        self._done.set()

    async def on_llm_error(self, error: BaseException, **kwargs: Any) -> None:
        self._done.set()

    async def tokens(self) -> AsyncIterator[str]:
        while not self._queue.empty() or not self._done.is_set():
            get = asyncio.ensure_future(self._queue.get())
            stop = asyncio.ensure_future(self._done.wait())
            done, others = await asyncio.wait([get, stop], return_when=asyncio.FIRST_COMPLETED)
            for other in others:
                other.cancel()
            if get in done:
                yield get.result()


@lru_cache(maxsize=64)
def model_named(name: str) -> ChatOpenAI:
    return ChatOpenAI(model=name, streaming=True, max_retries=0)


@app.post("/chat")
async def chat(ask: Ask) -> StreamingResponse:
    handler = QueueHandler()
    model = model_named(ask.model)

    async def frames() -> AsyncIterator[str]:
        task = asyncio.create_task(
            model.ainvoke([("user", ask.message)], config={"callbacks": [handler]})
        )
        async for token in handler.tokens():
            yield f"data: {token}\n\n"
        await task

    return StreamingResponse(frames(), media_type="text/event-stream")
