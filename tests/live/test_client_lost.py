"""``python -m app chat`` when workers die, drain, or cannot reach their store."""

import json
import re
import signal
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from app.simulator import expected_text
from tests.live.chat import Chat, until
from tests.live.servers import PLAIN, Gateway
from tests.live.stand_ins import DONE, FINAL, RUN_ID, STREAM, Canned, frames, token

START = (
    "start",
    {"run_id": RUN_ID, "conversation_id": "c1", "model": "m", "heartbeat_ms": 10_000},
)
WHOLE = (STREAM, frames(START, token("one "), token("two"), FINAL, DONE))
CUT = (STREAM, "retry: 1\n" + frames(START))
GONE = ("404 Not Found", "")
MISSING = ("404 Not Found\r\ncontent-type: application/problem+json", '{"code": "not_found"}')
AWAY = ("503 Service Unavailable\r\nretry-after: 0", '{"code": "overloaded", "detail": "Away."}')
BEATS = (STREAM, ": hb\n: hb\n")


def ending(code: str, first: int) -> str:
    error = {"code": code, "message": "It died.", "retryable": True}
    return frames(("error", error), ("done", {"status": "failed"}), first=first)


LOST = ending("worker_lost", 1_000_000)
DIED = (STREAM, CUT[1] + LOST)
DRAINED = (STREAM, CUT[1] + ending("draining", 2))


def stored(status: str, run_id: str = RUN_ID, calls: int = 0) -> tuple[str, str]:
    message = {"run_id": run_id, "tool_calls": []}
    answer = {"id": "a1", "role": "assistant", "status": status, "tool_calls": [{}] * calls}
    question = {"id": "q1", "role": "user", "status": "completed"}
    return "200 OK", json.dumps({"messages": [message | question, message | answer]})


class Keeping(Canned):
    """``asked``: method and address of each request, in order; ``bodies``: what they posted."""

    def __init__(self, *answers: tuple[str, str]) -> None:
        self.bodies: list[Any] = []
        super().__init__(*answers)

    def answer(self, client: socket.socket, number: int) -> None:
        with client.makefile("rb") as stream:
            head = b"".join(iter(stream.readline, b"\r\n")).decode()
            length = re.search(r"content-length: ([0-9]+)", head.lower())
            body = stream.read(int(length[1])) if length else b"null"
        self.requests.append(head)
        self.bodies.append(json.loads(body))
        self._send(client, *self._answers[min(number, len(self._answers) - 1)])

    @property
    def asked(self) -> list[str]:
        return [" ".join(request.split(" ", 2)[:2]) for request in self.requests]

    @property
    def keys(self) -> set[str]:
        return {
            key for each in self.requests for key in re.findall(r"idempotency-key: (\S+)", each)
        }


EVENTS = f"GET /runs/{RUN_ID}/events"
HIDDEN, TALK = f"{EVENTS}?include=tools", "GET /conversations/c1"


@pytest.mark.parametrize("answers", [[DIED], [CUT, (STREAM, LOST)]], ids=["at once", "resumed"])
def test_a_run_whose_worker_died_before_its_first_token_is_asked_for_again(
    answers: list[tuple[str, str]],
) -> None:
    steps = [*answers, (STREAM, LOST), stored("running"), WHOLE]
    with Keeping(*steps) as server, Chat("x", server.url) as chat:
        assert (chat.wait(), bytes(chat.out)) == (0, b"one two\n")
        assert server.asked[-3:] == [HIDDEN, TALK, "POST /conversations/c1/regenerate"]
        assert f"last-event-id: {RUN_ID}.1\r\n" in server.requests[-3]
        assert server.bodies[-1] == {"grace_seconds": 60, "parent_message_id": "a1"}
        assert len(server.keys) == 1
    assert chat.words.count("It died, trying again in") == 1


@pytest.mark.parametrize("found", [MISSING, stored("completed", "another")])
def test_a_question_that_was_not_stored_is_put_once_more(found: tuple[str, str]) -> None:
    with Keeping(DRAINED, found, WHOLE) as server:
        with Chat("x", server.url, conversation="c1") as chat:
            assert (chat.wait(), bytes(chat.out)) == (0, b"one two\n")
        assert server.asked == ["POST /chat", TALK, "POST /chat"]
        assert server.bodies[0] == server.bodies[2]
        assert len(server.keys) == 1


def test_a_run_whose_worker_died_before_it_told_anything_is_asked_for_again() -> None:
    with Keeping((STREAM, LOST), WHOLE) as server, Chat("x", server.url) as chat:
        assert (chat.wait(), bytes(chat.out)) == (0, b"one two\n")
        assert server.asked == ["POST /chat", "POST /chat"]


def test_a_run_whose_worker_died_behind_a_hidden_tool_is_not_repeated_unasked() -> None:
    hidden = (STREAM, frames(("tool_call", {"name": "mail"}), first=2) + LOST)
    with Keeping(DIED, hidden) as server, Chat("x", server.url) as chat:
        assert chat.wait() == 1
        assert server.asked == ["POST /chat", HIDDEN]
    assert chat.words == "error: It died. (worker_lost)\n"


def test_a_run_whose_worker_died_behind_a_token_is_told_in_words() -> None:
    body = frames(START, token("one ")) + LOST
    with Keeping((STREAM, body)) as server, Chat("x", server.url) as chat:
        assert (chat.wait(), bytes(chat.out)) == (1, b"one \n")
        assert server.asked == ["POST /chat"]
    assert chat.words == "error: It died. (worker_lost)\n"


def test_a_run_that_is_gone_before_its_first_token_is_asked_for_again_with_its_key() -> None:
    steps = [CUT, GONE, AWAY, stored("failed"), AWAY, WHOLE]
    with Keeping(*steps) as server, Chat("x", server.url) as chat:
        assert (chat.wait(), bytes(chat.out)) == (0, b"one two\n")
        again = ["POST /conversations/c1/regenerate"] * 2
        assert server.asked == ["POST /chat", EVENTS, TALK, TALK, *again]
        assert len(server.keys) == 1
    assert "the gateway no longer has this answer, trying again in" in chat.words


@pytest.mark.parametrize("found", [stored("completed"), stored("failed", calls=1)])
def test_a_run_that_is_gone_and_did_something_is_not_repeated(found: tuple[str, str]) -> None:
    with Keeping(CUT, GONE, found) as server, Chat("x", server.url) as chat:
        assert chat.wait() == 2
        assert server.asked == ["POST /chat", EVENTS, TALK]
    assert chat.words.endswith("no longer has this answer: the rest of it is lost\n")


def test_a_run_that_is_gone_again_and_again_is_given_up() -> None:
    steps = [CUT, GONE, MISSING, CUT, GONE, MISSING, CUT, GONE]
    with Keeping(*steps) as server, Chat("x", server.url) as chat:
        assert chat.wait() == 2
        assert server.asked.count("POST /chat") == 3


def test_a_body_of_heartbeats_alone_is_resumed_and_a_refusal_is_waited_for() -> None:
    body = frames(START, token("one "))
    rest = frames(token("two"), FINAL, DONE, first=3)
    steps = [(STREAM, "retry: 1\n" + body), BEATS, AWAY, (STREAM, rest)]
    with Keeping(*steps) as server, Chat("x", server.url) as chat:
        assert (chat.wait(), bytes(chat.out)) == (0, b"one two\n")
        assert server.asked == ["POST /chat", EVENTS, EVENTS, EVENTS]
        assert all(f"last-event-id: {RUN_ID}.2\r\n" in each for each in server.requests[1:])
    assert re.sub(r"in [0-9]+ s", "", chat.words).splitlines() == [
        "connection lost, resuming  …",
        "connection lost, resuming  …",
        "Away, resuming  …",
    ]


def test_a_refusal_is_no_sign_that_an_earlier_request_began_nothing() -> None:
    busy = ("503 Service Unavailable\r\nretry-after: 20", "{}")
    with Keeping((STREAM, ""), busy) as server, Chat("x", server.url) as chat:
        chat.says("Unavailable, resuming in 2")
        chat.interrupt()
        assert chat.wait() == 130
        assert len(server.keys) == 1
    assert "the gateway did not confirm the stop" in chat.words


@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGKILL])
def test_a_gateway_that_is_replaced_before_the_first_token_is_not_noticed(
    start_gateway: Callable[..., Gateway], tmp_path: Path, end: signal.Signals
) -> None:
    question = "sim:slow,first=2"
    old = start_gateway(data_dir=tmp_path, drain_seconds=0.1)
    with Chat(question, old.url) as chat:
        until(
            lambda: httpx.get(f"{old.url}/conversations", **PLAIN).json()["items"], "the question"
        )
        old.signal(end)
        old.wait()
        new = start_gateway(data_dir=tmp_path, port=urlsplit(old.url).port)
        assert chat.wait() == 0
    assert chat.out.decode() == expected_text(question) + "\n"
    (talk,) = httpx.get(f"{new.url}/conversations", **PLAIN).json()["items"]
    assert talk["id"] == chat.conversation
    found = httpx.get(f"{new.url}/conversations/{chat.conversation}", **PLAIN).json()["messages"]
    assert [(each["role"], each["status"]) for each in found] == [
        ("user", "completed"),
        ("assistant", "failed"),
        ("assistant", "completed"),
    ]
