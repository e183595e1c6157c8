"""Talk with a gateway as somebody who has a conversation does."""

import asyncio
import json
from collections.abc import Mapping
from typing import Any, NamedTuple

import httpx

from tests.live.asking import ANSWER_S, Answer, client, get
from tests.live.reading import WAIT_S, Stream, opened, until
from tests.live.servers import PLAIN, Gateway, SimulatorProcess

Shown = dict[str, Any]


class Said(NamedTuple):
    """A message as a person sees it."""

    role: str
    text: str
    status: str = "completed"
    active: bool = True


def conversation_of(answer: Answer) -> str:
    return str(answer.one("start")["conversation_id"])


async def show(gateway: Gateway, conversation_id: str) -> Shown:
    response = await get(gateway, f"/conversations/{conversation_id}")
    assert response.status_code == 200, response.text
    shown: Shown = response.json()
    return shown


async def messages(gateway: Gateway, conversation_id: str) -> list[Shown]:
    shown: list[Shown] = (await show(gateway, conversation_id))["messages"]
    return shown


async def said(gateway: Gateway, conversation_id: str) -> list[Said]:
    """All that was said, on all branches."""
    return [
        Said(*(message[field] for field in Said._fields))
        for message in await messages(gateway, conversation_id)
    ]


async def call(
    gateway: Gateway,
    method: str,
    path: str,
    body: Mapping[str, Any] | None = None,
    headers: Mapping[str, str] | None = None,
) -> httpx.Response:
    """Read to the end; httpx raises where a stream's body has no proper one."""
    async with asyncio.timeout(ANSWER_S), client(gateway) as http:
        return await http.request(method, path, json=body, headers=headers)


async def regenerate(
    gateway: Gateway, conversation_id: str, body: Mapping[str, Any] | None = None, **headers: str
) -> Answer:
    fields = {name.replace("_", "-"): value for name, value in headers.items()}
    path = f"/conversations/{conversation_id}/regenerate"
    response = await call(gateway, "POST", path, body, fields)
    assert response.status_code == 200, response.text
    return Answer(response.headers, response.content)


def regenerating(gateway: Gateway, conversation_id: str, **fields: Any) -> Any:
    """The same, read step by step."""
    return opened(gateway.url, "POST", f"/conversations/{conversation_id}/regenerate", fields)


async def started(stream: Stream) -> str:
    """The conversation of a stream of which nothing was read yet."""
    [start] = await stream.events(1)
    return str(json.loads(start.data)["conversation_id"])


async def ending(stream: Stream) -> list[str]:
    """The last event's name, and its status, once the body has ended."""
    last = (await stream.rest())[-1]
    return [last.event, json.loads(last.data)["status"]]


async def told(simulator: SimulatorProcess, mark: str) -> list[tuple[str, str]]:
    """Role and content of the messages of the newest request whose questions hold ``mark``."""
    at = simulator.url.removesuffix("/v1") + "/requests"
    async with httpx.AsyncClient(timeout=WAIT_S, **PLAIN) as http:
        requests = (await http.get(at, params={"contains": mark})).json()
    return [(each["role"], each.get("content") or "") for each in requests[-1]["messages"]]


async def has_ended(gateway: Gateway, run_id: str) -> Shown:
    """The run, once it is not running any more."""

    async def look() -> Shown:
        run: Shown = (await get(gateway, f"/runs/{run_id}")).json()
        return run

    return await until(look, lambda run: run["status"] != "running", f"the end of run {run_id}")
