"""Schemathesis over the whole API reference of a real gateway: what it says is what happens.

Whatever the requests are, valid, invalid or odd, no answer is a 500, each has a status, headers, a
content type and a body as the reference has them for that endpoint, and each stream has its end.

More by hand: ``OPENAPI_EXAMPLES=500 pytest tests/live/test_openapi.py``.
"""

import asyncio
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from schemathesis import Response, openapi
from schemathesis.config import SchemathesisConfig
from schemathesis.core.result import Ok
from schemathesis.engine import Status, events, from_schema

from tests.live.access.people import Keyring, Person, call, start
from tests.live.asking import Answer
from tests.live.servers import PLAIN, Gateway

EXAMPLES = int(os.environ.get("OPENAPI_EXAMPLES", "8"))  # of each endpoint, beside its edges
ANSWER_S = 20.0
CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
)
# Short answers; a request that names another model gets the simulator's long one.
GATEWAY = {"model": "sim:tokens,n=3", "run_timeout_seconds": 0.5, "reconnect_grace_seconds": 0}
GENERATION = {"deterministic": True, "max-examples": EXAMPLES}
PUBLIC = {"GET /health", "GET /ready", "DELETE /session"}
NOTHING: Mapping[str, Sequence[str]] = {}
FREE = {"rate_limit": "1000000/minute", "max_runs_per_caller": 10_000}


@dataclass
class Seen:
    """``answers``: how many, by endpoint and status. ``wrong``: what the reference does not say."""

    answers: dict[str, Counter[int]] = field(default_factory=dict)
    streams: Counter[str] = field(default_factory=Counter)  # by how they ended
    wrong: list[str] = field(default_factory=list)

    def statuses(self) -> set[int]:
        return {status for statuses in self.answers.values() for status in statuses}

    def answered(self, status: int) -> set[str]:
        return {where for where, statuses in self.answers.items() if statuses[status]}


def explore(
    gateway: Gateway,
    who: Person | None = None,
    *,
    there: Mapping[str, Sequence[str]] = NOTHING,
    **more: Any,
) -> Seen:
    """``there``: parameters' values that lead somewhere, which chance would not find.
    ``more``: of Schemathesis's configuration."""
    document = httpx.get(f"{gateway.url}/openapi.json", **PLAIN).json()
    for methods in document["paths"].values():
        for operation in methods.values():
            for parameter in operation.get("parameters", ()):
                if values := there.get(parameter["name"]):
                    parameter["schema"] = {"type": "string", "enum": list(values)}
    config = SchemathesisConfig.from_dict(
        {
            "base-url": gateway.url,
            "headers": who.headers if who else {},
            "request-timeout": ANSWER_S,
            "max-stream-events": 10_000,
            "continue-on-failure": True,
            "suppress-health-check": ["all"],
            "generation": GENERATION,
            "checks": {"enabled": False, **{name: {"enabled": True} for name in CHECKS}},
            **more,
        }
    )
    schema = openapi.from_dict(document, config=config)
    operations = list(schema.get_all_operations())
    assert all(isinstance(each, Ok) for each in operations), operations
    seen = Seen({each.ok().label: Counter() for each in operations if isinstance(each, Ok)})
    for event in from_schema(schema).execute():
        if isinstance(event, events.ScenarioFinished):
            seen.wrong += _failures(event)
            for case_id, done in event.recorder.interactions.items():
                where = event.recorder.cases[case_id].value.operation.label
                if done.response is None:
                    seen.wrong.append(f"{where}: no answer: {done.request.uri}")
                else:
                    _look(seen, where, done.response)
        elif isinstance(event, events.NonFatalError | events.FatalError):
            seen.wrong.append(str(event))
    assert "Traceback" not in gateway.output, gateway.output
    return seen


def _failures(event: events.ScenarioFinished) -> Iterator[str]:
    for case_id, checks in event.recorder.checks.items():
        for check in checks:
            if check.status is Status.FAILURE and check.failure_info is not None:
                failure, case = check.failure_info.failure, event.recorder.cases[case_id].value
                yield f"{failure.title}: {failure.message}\n{case.as_curl_command()}"


def _look(seen: Seen, where: str, response: Response) -> None:
    seen.answers[where][response.status_code] += 1
    if response.headers.get("content-type", [""])[0].startswith("text/event-stream"):
        seen.streams[_end(response.content or b"")] += 1


def _end(body: bytes) -> str:
    """How a stream ended. Raises where it did not, or where a byte belongs to no frame."""
    read = Answer(httpx.Headers(), body).events
    if not read:
        return "nothing left"
    assert read[-1].name == "done", body[-1000:]
    status: str = read[-1].data["status"]
    return status


async def made(url: str, who: Person) -> dict[str, list[str]]:
    """Values of parameters that lead to runs and conversations of this caller."""
    runs = [await start(url, who, "sim:tokens,n=3", on_disconnect="continue") for _ in range(12)]
    ids = [run["run_id"] for run in runs]
    for run_id in ids:
        events = await call(url, who, "GET", f"/runs/{run_id}/events")
        assert b"event: done" in events.content
    keys = [f"k{number}" for number in range(200)]  # with another body they conflict
    return {
        "run_id": [*ids, "unknown"],
        "conversation_id": [run["conversation_id"] for run in runs],
        "Last-Event-ID": ["", *(f"{run_id}.{seq}" for run_id in ids[:3] for seq in (1, 6, 99))],
        "Idempotency-Key": keys,
        "idempotency_key": keys,
        "include": ["", "tools", "reasoning,drafts"],
        "model": ["sim:tokens,n=1", "sim:eof,after=1"],
        "grace_seconds": ["0", "1"],
        "on_disconnect": ["cancel", "continue"],
    }


def test_of_an_open_gateway(start_gateway: Callable[..., Gateway]) -> None:
    seen = explore(start_gateway(**GATEWAY))
    assert not seen.wrong, "\n\n".join(seen.wrong)
    assert all(seen.answers.values())
    assert {200, 201, 204, 400, 404, 415, 422} <= seen.statuses()


def test_with_a_key(start_gateway: Callable[..., Gateway], tmp_path: Path) -> None:
    """Every endpoint has good answers among those that it gave."""
    ring = Keyring(tmp_path)
    ann = ring.add()
    gateway = start_gateway(api_keys_file=ring.path, **GATEWAY, **FREE)
    there = asyncio.run(made(gateway.url, ann))
    shown = {"with-security-parameters": False, **GENERATION}
    seen = explore(gateway, ann, there=there, generation=shown)
    assert not seen.wrong, "\n\n".join(seen.wrong)
    good = seen.answered(200) | seen.answered(201) | seen.answered(204)
    assert good == set(seen.answers), seen.answers
    assert 401 not in seen.statuses()
    assert {"completed", "nothing left"} <= set(seen.streams), seen.streams


def test_without_a_key(start_gateway: Callable[..., Gateway], tmp_path: Path) -> None:
    """With none, or with one that chance has found."""
    ring = Keyring(tmp_path)
    ring.add()
    seen = explore(start_gateway(api_keys_file=ring.path, **GATEWAY, **FREE))
    assert not seen.wrong, "\n\n".join(seen.wrong)
    assert seen.answered(200) | seen.answered(201) | seen.answered(204) == PUBLIC
    assert {401, 429} <= seen.statuses()
    assert not seen.streams
