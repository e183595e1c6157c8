"""For gateways with several models and tools of their own: how they are started, what their
upstreams were asked, and what a reader makes of an answer."""

import json
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx

from tests.live.asking import Answer, client, marker, until
from tests.live.leaving import ALLOWANCE_S
from tests.live.servers import PLAIN, Gateway, Process, SimulatorProcess, running_gateway

STOP_S = 0.5  # the issue's: from DELETE to its answer
# Of one request: its heads, names in small letters, and its body.
Asked = tuple[dict[str, str], dict[str, Any]]


@contextmanager
def gateway_with(cwd: Path, models: str, **settings: Any) -> Iterator[Gateway]:
    """A gateway that is ready. ``models``: its models file."""
    (cwd / "models.toml").write_text(models)
    with running_gateway(cwd, None, models_file="models.toml", **settings) as gateway:
        yield gateway


def refused(cwd: Path, **settings: Any) -> str:
    """The one line that a start which fails leaves on the terminal."""
    env = {f"GATEWAY_{name.upper()}": str(value) for name, value in settings.items()}
    process = Process("app", env={"GATEWAY_PORT": "0", **env}, cwd=cwd)
    try:
        assert process.wait() == 2, process.output
    finally:
        process.stop()
    assert process.output.startswith("gateway: ")
    assert process.output.count("\n") == 1, process.output
    return process.output


def calling(*calls: tuple[str, dict[str, Any] | str], **keys: object) -> str:
    """A prompt whose answer calls these tools, with these arguments, before it answers.

    All calls in one turn; ``keys`` are those of ``sim:tool``. Found again by its last word.
    """
    names = "+".join(quote(name, safe="") for name, _ in calls)
    written = (args if isinstance(args, str) else json.dumps(args) for _, args in calls)
    arguments = "+".join(quote(args, safe="") for args in written)
    more = "".join(f",{key}={value}" for key, value in keys.items())
    return f"sim:tool,name={names},args={arguments}{more} {marker()}"


def kept_text(answer: Answer) -> str:
    """The tokens less the retracted ones."""
    text = ""
    for event in answer.events:
        if event.name == "token":
            text += event.data["text"]
        elif event.name == "retract":
            assert event.data["text"]
            assert text.endswith(event.data["text"])
            text = text.removesuffix(event.data["text"])
    return text


def told(answer: Answer, name: str) -> list[dict[str, Any]]:
    """The data of all events of that name."""
    return [event.data for event in answer.events if event.name == name]


def requests(simulator: SimulatorProcess, contains: str) -> list[dict[str, Any]]:
    """The bodies of the requests with that in a user's message, oldest first."""
    address = simulator.url.removesuffix("/v1") + "/requests"
    bodies: list[dict[str, Any]] = httpx.get(address, params={"contains": contains}, **PLAIN).json()
    return bodies


def run_of(gateway: Gateway, run_id: str) -> dict[str, Any]:
    run: dict[str, Any] = httpx.get(f"{gateway.url}/runs/{run_id}", **PLAIN).json()
    return run


def messages_of(gateway: Gateway, conversation_id: str) -> list[dict[str, Any]]:
    shown = httpx.get(f"{gateway.url}/conversations/{conversation_id}", **PLAIN).json()
    messages: list[dict[str, Any]] = shown["messages"]
    return messages


class Tap(ThreadingHTTPServer):
    """Stands before a simulator and keeps the heads of requests too."""

    daemon_threads = True

    def __init__(self, simulator: SimulatorProcess) -> None:
        super().__init__(("127.0.0.1", 0), _Tapped)
        self.behind = simulator.url.removesuffix("/v1")
        self.asked: list[Asked] = []
        self.url = f"http://127.0.0.1:{self.server_port}/v1"


@contextmanager
def tapped(simulator: SimulatorProcess) -> Iterator[Tap]:
    with Tap(simulator) as tap:
        thread = threading.Thread(target=tap.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield tap
        finally:
            tap.shutdown()
            thread.join()


class _Tapped(BaseHTTPRequestHandler):
    server: Tap

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        heads = {name.lower(): value for name, value in self.headers.items()}
        self.server.asked.append((heads, json.loads(body)))
        answer = httpx.post(self.server.behind + self.path, content=body, **PLAIN)
        self.send_response(answer.status_code)
        self.send_header("content-type", answer.headers["content-type"])
        self.end_headers()
        self.wfile.write(answer.content)

    def log_message(self, *_: Any) -> None:
        pass


def lives(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


async def stopped(gateway: Gateway, run_id: str) -> None:
    """``DELETE`` a run, which answers within the issue's half a second."""
    before = _waited_s(gateway.pid)
    async with client(gateway) as http:
        began = time.monotonic()
        response = await http.delete(f"/runs/{run_id}")
        took_s = time.monotonic() - began
    answer: dict[str, Any] = response.json()
    assert response.status_code == 200, answer
    assert answer["status"] == "cancelled"
    bound_s = STOP_S + _waited_s(gateway.pid) - before
    assert answer["stopped_after_ms"] / 1000 <= bound_s, answer
    assert took_s <= bound_s + ALLOWANCE_S


async def has_ended(gateway: Gateway, run_id: str) -> dict[str, Any]:
    """The run, once it has."""
    await until(lambda: run_of(gateway, run_id)["status"] != "running", f"the end of {run_id}")
    return run_of(gateway, run_id)


def _waited_s(pid: int) -> float:
    """Seconds that the main threads of that process and of ours, where the loops run, stood ready
    to run but got no CPU (Linux): others may use the machine as well."""
    files = (Path(f"/proc/{each}/schedstat") for each in (pid, os.getpid()))
    return sum(int(file.read_text().split()[1]) for file in files) / 1e9
