"""Ask a real gateway and look closely at what it answers. Every wait has a bound."""

import asyncio
import json
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import httpx

from tests.live.servers import PLAIN, Gateway

FRAME = re.compile(rb"id: ([^\n]+)\nevent: ([a-z_]+)\n(?:retry: [0-9]+\n)?data: ([^\n]+)\n\n")
HEARTBEAT = b": hb\n"
PROBLEM_FIELDS = {"type", "title", "status", "detail", "code", "request_id"}
ANSWER_S = 30.0


@dataclass(frozen=True)
class Event:
    id: str
    name: str
    data: dict[str, Any]


@dataclass(frozen=True)
class Answer:
    """A stream that was read to the proper end of its body."""

    headers: httpx.Headers
    body: bytes

    @property
    def events(self) -> list[Event]:
        """Raises where a single byte belongs neither to a frame nor to a heartbeat."""
        between = FRAME.sub(b"", self.body).replace(HEARTBEAT, b"")
        assert not between, f"neither frame nor heartbeat: {between[:500]!r}"
        return [
            Event(match[1].decode(), match[2].decode(), json.loads(match[3]))
            for match in FRAME.finditer(self.body)
        ]

    @property
    def names(self) -> list[str]:
        return [event.name for event in self.events]

    @property
    def text(self) -> str:
        return "".join(event.data["text"] for event in self.events if event.name == "token")

    @property
    def run_id(self) -> str:
        return self.headers["content-location"].removeprefix("/runs/")

    def one(self, name: str) -> dict[str, Any]:
        """The data of the only event of that name."""
        found = [event.data for event in self.events if event.name == name]
        assert len(found) == 1, f"{len(found)} events named {name}: {self.names}"
        return found[0]


def client(gateway: Gateway, **options: Any) -> httpx.AsyncClient:
    """No read timeout, which would be shorter than a heartbeat: bound what you do with it."""
    return httpx.AsyncClient(
        base_url=gateway.url,
        timeout=httpx.Timeout(ANSWER_S, read=None),
        limits=httpx.Limits(max_connections=None),
        **{**PLAIN, **options},
    )


async def ask(gateway: Gateway, text: str, *, bound_s: float = ANSWER_S, **fields: Any) -> Answer:
    """``POST /chat``, read to the end; httpx raises where the body has no proper one."""
    async with asyncio.timeout(bound_s), client(gateway) as http:
        response = await http.post("/chat", json={"text": text, **fields})
    assert response.status_code == 200, response.text
    return Answer(response.headers, response.content)


async def get(gateway: Gateway, path: str, **options: Any) -> httpx.Response:
    async with asyncio.timeout(ANSWER_S), client(gateway) as http:
        return await http.get(path, **options)


async def is_alive(gateway: Gateway) -> None:
    """The gateway still answers a question, whole and exact."""
    answer = await ask(gateway, "sim:tokens,n=2")
    assert answer.names == ["start", "token", "token", "final", "done"]
    assert answer.text == answer.one("final")["text"] == "tok0 tok1 "


def marker() -> str:
    """A word for a prompt by which the upstream's statistics find the call again."""
    return f"m{uuid4().hex}"


def assert_problem(response: httpx.Response, status: int, code: str) -> None:
    """RFC 9457, with our fields exactly."""
    assert response.status_code == status, response.text[:1000]
    assert response.headers["content-type"] == "application/problem+json"
    body = response.json()
    assert set(body) == PROBLEM_FIELDS
    assert (body["status"], body["code"]) == (status, code)
    assert all(isinstance(body[name], str) and body[name] for name in PROBLEM_FIELDS - {"status"})
    assert body["request_id"] == response.headers["x-request-id"]


async def until(holds: Callable[[], object], what: str, bound_s: float = 10.0) -> None:
    """Poll another process until something holds."""
    deadline = time.monotonic() + bound_s
    while not await asyncio.to_thread(holds):
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {bound_s:g} s: {what}")
        await asyncio.sleep(0.02)
