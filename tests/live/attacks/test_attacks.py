"""Attacks on a real gateway, each with the answer that it must get, and what must hold after it.

A table: nothing here knows one attack from another. What the gateway holds against many at once is
elsewhere: slow senders and 5,000 idle connections in ``tests.live.test_slow_senders``.
"""

import json
from collections import Counter

import pytest

from tests.live.asking import FRAME, HEARTBEAT, PROBLEM_FIELDS
from tests.live.attacks import (
    cases_bodies,
    cases_credentials,
    cases_http,
    cases_ids,
    cases_injection,
    cases_sites,
    cases_tokens,
)
from tests.live.attacks.case import Case
from tests.live.attacks.wire import Answer, answers
from tests.live.attacks.world import World
from tests.live.reading import ask
from tests.live.servers import ROOT

CASES: list[Case] = [
    *cases_injection.CASES,
    *cases_ids.CASES,
    *cases_credentials.CASES,
    *cases_tokens.CASES,
    *cases_bodies.CASES,
    *cases_http.CASES,
    *cases_sites.CASES,
]
# Headers that an answer may have, whatever was sent.
USUAL = {
    "allow",
    "cache-control",
    "connection",
    "content-length",
    "content-location",
    "content-type",
    "cross-origin-resource-policy",
    "date",
    "location",
    "ratelimit",
    "ratelimit-policy",
    "retry-after",
    "transfer-encoding",
    "vary",
    "www-authenticate",
    "x-accel-buffering",
    "x-content-type-options",
    "x-request-id",
}


def test_there_are_sixty_attacks_and_no_two_are_the_same() -> None:
    assert len(CASES) >= 60
    assert [name for name, count in Counter(case.name for case in CASES).items() if count > 1] == []


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_an_attack_gets_its_answer_and_nothing_else(world: World, case: Case) -> None:
    lines = len(world.gateway.lines)
    mark = ask("").split(" ")[1]
    made = case.made if isinstance(case.made, str) else case.made(world)
    names = {"MARK": mark, "MADE": made}
    received = world.send(case.sent, names, nginx=case.nginx)
    found = answers(received)

    assert tuple(answer.status for answer in found) == case.statuses, received
    for answer in found:
        _looks_as_usual(answer, case)
    if found:
        _says_what_it_should(found[-1], case)
    for text in (*case.never, *map(str.encode, world.secrets)):
        assert world.filled(text, names).lower() not in received.lower(), received
    for text in case.has:
        assert text in received, received

    world.is_whole(nginx=case.nginx)
    assert world.calls(mark) == case.starts
    said = "".join(world.gateway.lines[lines:])
    assert "Traceback" not in said, said
    # What is short stands in other words, too.
    assert not [text for text in (*world.secrets, mark, made) if len(text) > 8 and text in said]


def _looks_as_usual(answer: Answer, case: Case) -> None:
    names = [name for name, _ in answer.headers]
    usual = USUAL | {"server"} if case.nginx else USUAL
    assert set(names) <= usual | case.sets, answer
    assert len(set(names)) == len(names), answer
    assert str(ROOT).encode() not in answer.body


def _says_what_it_should(answer: Answer, case: Case) -> None:
    if case.text is not None or case.error is not None:
        return _streams(answer, case)
    is_problem = answer.header("content-type") == "application/problem+json"
    assert is_problem == (case.code is not None), answer
    if is_problem and answer.body:
        problem = json.loads(answer.body)
        assert set(problem) == PROBLEM_FIELDS
        assert (problem["status"], problem["code"]) == (answer.status, case.code), answer
        assert problem["request_id"] == answer.header("x-request-id")
    return None


def _streams(answer: Answer, case: Case) -> None:
    """Whole frames, numbered without a gap; not a byte between them."""
    assert answer.ended
    assert answer.header("content-type") == "text/event-stream; charset=utf-8"
    assert not FRAME.sub(b"", answer.body).replace(HEARTBEAT, b""), answer.body
    events = [(match[2].decode(), json.loads(match[3])) for match in FRAME.finditer(answer.body)]
    run_id = (answer.header("content-location") or "").removeprefix("/runs/")
    ids = [match[1].decode() for match in FRAME.finditer(answer.body)]
    assert ids == [f"{run_id}.{number}" for number in range(1, len(events) + 1)]
    names = [name for name, _ in events]
    assert (names[0], names.count("start"), names[-1], names.count("done")) == (
        ("start", 1, "done", 1)
    )
    assert len(answer.body.splitlines()) == answer.body.count(b"\n")
    if case.error is not None:
        assert names[-2] == "error"
        assert (events[-2][1]["code"], events[-1][1]["status"]) == (case.error, "failed")
    else:
        said = "".join(fields["text"] for name, fields in events if name == "token")
        assert said == events[-2][1]["text"] == case.text
        assert (names[-2], events[-1][1]["status"]) == ("final", "completed")
