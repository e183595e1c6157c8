"""What is left when nothing breaks any more: all has ended, and all tell the same."""

import asyncio
import re
import time
from collections import Counter, defaultdict
from collections.abc import Coroutine, Iterable, Iterator
from typing import Any

import aiohttp
import asyncpg  # type: ignore[import-untyped]  # it has no types

from tests.chaos.deployment import PREFIX, Deployment
from tests.chaos.load import Load, session
from tests.chaos.records import Violation
from tests.chaos.verdicts import Calls, Verdicts

AT_ONCE = 20  # requests
LOOK_S = 0.25
CONNECTIONS = 12  # of one worker to Redis: one that hears, ten others; one that was just left
# The last line of a traceback, which is indented up to there.
_RAISED = re.compile(r"^Traceback .*\n(?:[ |+].*\n|\n)*(.*)", re.MULTILINE)
_MARK = re.compile(r"q[0-9a-f]{20}")
_SERVED = {f"{PREFIX}:store", f"{PREFIX}:leases"}  # belong to no run


async def look(place: Deployment, load: Load, verdicts: Verdicts) -> None:
    """Tell ``verdicts`` all there is."""
    left = [f"never ended: {what}" for what in await _unquiet(place, load)]
    left += await asyncio.to_thread(lambda: [*_workers(place), *_redis(place)])
    verdicts.violations += map(Violation, left)
    rows = await _messages(place)
    verdicts.calls = _marked(await asyncio.to_thread(place.calls))
    runs = defaultdict[str, set[str]](set)
    for row in rows:
        for mark in _MARK.findall(row["content"]) if row["role"] == "user" else ():
            runs[mark].add(row["run_id"])
    for asked in load.asked:
        if asked.run_id:
            runs[asked.question.mark].add(asked.run_id)
        verdicts.ended(asked)
    verdicts.asked_once(load.asked, runs)
    known = {asked.run_id: asked for asked in load.asked if asked.run_id}
    since = {row["run_id"]: float(row["created_at"]) for row in rows}
    since |= {run_id: asked.began_at for run_id, asked in known.items()}
    conversations = {asked.conversation_id for asked in known.values()} - {None}
    async with session(place.url) as http:

        async def shown(run_id: str) -> None:
            urls = [f"{worker.url}/runs/{run_id}" for worker in place.workers]
            answers = [await _json(http, url) for url in urls]
            verdicts.shown(run_id, since[run_id], known.get(run_id), answers)

        stored: dict[str, dict[str, Any]] = {}

        async def read(conversation_id: str) -> None:
            found = await _json(http, f"/conversations/{conversation_id}")
            for message in found.get("messages", ()):
                if message["role"] == "assistant":
                    stored[message["run_id"]] = message

        await _some_at_once(shown(run_id) for run_id in since)
        await _some_at_once(read(each) for each in conversations if each is not None)
    for run_id, asked in known.items():
        verdicts.stored(asked, stored.get(run_id))


async def _unquiet(place: Deployment, load: Load) -> list[str]:
    """What does not come to rest."""
    deadline = time.monotonic() + load.plan.settle_s
    while True:
        left = await asyncio.to_thread(_left, place)
        left["messages that are said to be running"] = len(
            [row for row in await _messages(place) if row["status"] == "running"]
        )
        found = [f"{count} {what}" for what, count in left.items() if count]
        if not found or time.monotonic() > deadline:
            return found
        await asyncio.sleep(LOOK_S)


def _left(place: Deployment) -> dict[str, int]:
    with place.redis.client() as client:
        now = float(client.time()[0])
        claims = sum(
            client.zcount(key, now * 1000, "inf") for key in client.scan_iter(f"{PREFIX}:*:readers")
        )
        return {
            "upstream calls": place.open_calls(),
            "leases": client.zcard(f"{PREFIX}:leases"),
            "runs that are listened to in Redis": len(client.pubsub_channels(f"{PREFIX}:*:events")),
            "claims of readers elsewhere": claims,
        }


def _workers(place: Deployment) -> Iterator[str]:
    for worker in place.workers:
        ready = place.ready(worker)
        if ready["status"] != "ok":
            yield f"a worker is not ready: {ready}"
        told = Counter(found[1] for found in _RAISED.finditer(worker.said))
        for error, count in told.items():
            yield f"a worker met {count} times: {error}"


def _redis(place: Deployment) -> Iterator[str]:
    with place.redis.client() as client:
        for raw in client.scan_iter(count=1000):
            key = raw.decode()
            if key not in _SERVED and client.ttl(key) == -1:
                yield f"a key that never expires: {key}"
        connections = len(client.client_list()) - 1
    if connections > CONNECTIONS * len(place.workers):
        yield f"{connections} connections to Redis"


async def _messages(place: Deployment) -> list[Any]:
    connection = await asyncpg.connect(place.database_url.replace("+asyncpg", ""))
    try:
        rows: list[Any] = await connection.fetch(
            "SELECT run_id, role, status, created_at, content FROM messages"
        )
        return rows
    finally:
        await connection.close()


def _marked(calls: Iterable[dict[str, Any]]) -> Calls:
    found = Calls(list)
    for call in calls:
        for mark in _MARK.findall(call["prompt"]):
            found[mark].append(call)
    return found


async def _json(http: aiohttp.ClientSession, url: str) -> dict[str, Any]:
    """``status`` is HTTP's where it is not 200."""
    async with asyncio.timeout(30), http.get(url) as response:
        answer: dict[str, Any] = await response.json(content_type=None)
        return answer


async def _some_at_once(works: Iterable[Coroutine[Any, Any, None]]) -> None:
    slots = asyncio.Semaphore(AT_ONCE)

    async def one(work: Coroutine[Any, Any, None]) -> None:
        async with slots:
            await work

    async with asyncio.TaskGroup() as tasks:
        for work in works:
            tasks.create_task(one(work))
