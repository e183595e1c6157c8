"""An independent reader of chat completion streams, and requests for them."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx

from app.simulator import Simulator

PATH = "/v1/chat/completions"


def chat(prompt: str, *, stream: bool = True, **more: Any) -> dict[str, Any]:
    messages = [{"role": "user", "content": prompt}]
    body = {"model": "m", "messages": messages, "stream": stream}
    if stream:
        body["stream_options"] = {"include_usage": True}
    return {**body, **more}


@dataclass
class Seen:
    """What a stream said, frame by frame."""

    raw: bytes = b""
    chunks: list[dict[str, Any]] = field(default_factory=list)
    comments: int = 0
    done: bool = False
    broken: Exception | None = None

    @property
    def deltas(self) -> list[dict[str, Any]]:
        return [chunk["choices"][0]["delta"] for chunk in self.chunks if chunk.get("choices")]

    @property
    def texts(self) -> list[str]:
        """Contents after the role chunk, unrepaired."""
        return [d["content"] for d in self.deltas if "content" in d and "role" not in d]

    @property
    def finish_reasons(self) -> list[str]:
        reasons = [c["choices"][0]["finish_reason"] for c in self.chunks if c.get("choices")]
        return [reason for reason in reasons if reason]

    @property
    def usages(self) -> list[dict[str, Any]]:
        return [chunk["usage"] for chunk in self.chunks if chunk.get("usage")]

    def parse(self) -> "Seen":
        for block in self.raw.split(b"\n\n"):
            if block.startswith(b":"):
                self.comments += 1
            elif block == b"data: [DONE]":
                self.done = True
            elif block:
                assert block.startswith(b"data: "), block
                self.chunks.append(json.loads(block[6:]))
        return self


async def read(client: httpx.AsyncClient, prompt: str, **more: Any) -> Seen:
    """The whole stream; a transport error ends it and is kept."""
    seen = Seen()
    async with client.stream("POST", PATH, json=chat(prompt, **more)) as response:
        assert response.status_code == 200, await response.aread()
        assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
        try:
            async for data in response.aiter_raw():
                seen.raw += data
        except httpx.TransportError as error:
            seen.broken = error
    return seen.parse()


def request(prompt: str, **more: Any) -> bytes:
    """A request's bytes, for readers that look at the socket itself."""
    return post(json.dumps(chat(prompt, **more)).encode())


def post(body: bytes, *, path: str = PATH, headers: str = "") -> bytes:
    head = f"POST {path} HTTP/1.1\r\nhost: x\r\ncontent-length: {len(body)}\r\n{headers}\r\n"
    return head.encode() + body


@asynccontextmanager
async def connect(
    simulator: Simulator,
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A bare TCP connection, aborted in the end."""
    url = httpx.URL(simulator.url)
    reader, writer = await asyncio.open_connection(url.host, url.port)
    try:
        yield reader, writer
    finally:
        writer.transport.abort()
