"""sse-starlette and the openai SDK, without LangChain."""

import json
from collections.abc import AsyncIterator

from fastapi import FastAPI
from openai import AsyncOpenAI
from pydantic import BaseModel
from sse_starlette.sse import EventSourceResponse

app = FastAPI()
client = AsyncOpenAI(max_retries=0)


class Ask(BaseModel):
    model: str
    message: str


@app.post("/chat")
async def chat(ask: Ask) -> EventSourceResponse:
    async def events() -> AsyncIterator[dict[str, str]]:
        stream = await client.chat.completions.create(
            model=ask.model, stream=True, messages=[{"role": "user", "content": ask.message}]
        )
        async for chunk in stream:
            if chunk.choices and (text := chunk.choices[0].delta.content):
                yield {"event": "token", "data": json.dumps({"text": text})}
        yield {"event": "done", "data": "{}"}

    return EventSourceResponse(events())
