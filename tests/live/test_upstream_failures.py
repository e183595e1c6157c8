"""The upstream fails in every way that the simulator knows: the reader learns which, in our words.

The shared gateway waits 3 s for a first token and 1 s in the middle of an answer.
"""

import asyncio
import time
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from urllib.parse import quote

import httpx
import pytest

from app.simulator.scripts import expected_text
from app.simulator.texts import SECRET
from tests.live.asking import Answer, ask, get, is_alive, marker, until
from tests.live.servers import Gateway, SimulatorProcess

pytestmark = pytest.mark.anyio

RETRYABLE = {
    "upstream_unavailable",
    "upstream_rate_limited",
    "upstream_timeout",
    "upstream_stalled",
    "upstream_broken",
}
SECRETS = (SECRET, *SECRET.split(), "Please log in")
AT_ONCE = "retry_after=0"  # so that the tests need not wait for the back-off

# Script, code, calls that the upstream sees (None: the contract does not say).
FAILURES: list[tuple[str, str, int | None]] = [
    ("status,code=400", "upstream_rejected", 1),
    ("status,code=401", "upstream_auth", 1),
    ("status,code=403", "upstream_auth", 1),
    ("status,code=404", "upstream_rejected", 1),
    ("status,code=422", "upstream_rejected", 1),
    (f"status,code=408,{AT_ONCE}", "upstream_unavailable", 3),
    (f"status,code=409,{AT_ONCE}", "upstream_rejected", 3),
    (f"status,code=429,{AT_ONCE}", "upstream_rate_limited", 3),
    (f"status,code=500,{AT_ONCE}", "upstream_unavailable", 3),
    (f"status,code=503,{AT_ONCE}", "upstream_unavailable", 3),
    (f"status,code=599,{AT_ONCE}", "upstream_unavailable", 3),
    ("status,code=429,type=insufficient_quota", "upstream_rate_limited", 1),
    ("status,code=429,retry_after=3600", "upstream_rate_limited", 1),
    ("status,code=503,retry_after=3600", "upstream_unavailable", 1),
    ("cut,after=5,how=rst,interval=0.02", "upstream_broken", 1),
    ("cut,after=5,how=fin", "upstream_broken", 1),
    ("cut,after=0,how=fin", "upstream_broken", None),
    ("eof,after=5", "upstream_broken", 1),
    ("eof,after=0", "upstream_broken", None),
    ("done_only,after=5", "upstream_broken", 1),
    ("malformed,after=5,kind=json", "upstream_broken", 1),
    ("malformed,after=5,kind=shape", "upstream_broken", 1),
    ("malformed,after=5,kind=utf8", "upstream_broken", 1),
    ("malformed,kind=html", "upstream_broken", None),
    ("error,after=5", "upstream_unavailable", 1),
    ("error,after=0", "upstream_unavailable", None),
    ("error,after=5,code=never_heard_of", "upstream_unavailable", 1),
    ("error,after=5,code=rate_limit_exceeded", "upstream_rate_limited", 1),
    ("error,after=5,code=invalid_api_key", "upstream_auth", 1),
    ("error,after=5,code=context_length_exceeded", "upstream_rejected", 1),
    ("error,after=5,code=503", "upstream_unavailable", 1),
]
# What only a clock ends: 3 s for the first token, 1 s for every other.
SILENCES = [
    ("stall,after=5", "upstream_stalled"),
    ("tokens,n=3,interval=30", "upstream_stalled"),
    ("silent", "upstream_timeout"),
    ("slow,first=30", "upstream_timeout"),
    ("slow,head=30", "upstream_timeout"),
    ("comments,first=30", "upstream_timeout"),  # pings are no token
]
COMPLETE = [("finish,reason=length", "length"), ("finish,reason=content_filter", "content_filter")]


def shown_before(script: str) -> str:
    """What of the answer had arrived when it broke."""
    if script.startswith(("slow", "comments")):
        return ""
    return "tok0 " if script.startswith("tokens") else expected_text(f"sim:{script}")


def assert_failed(answer: Answer, code: str) -> None:
    """One ``error``, then ``done``, then nothing; the httpx client saw the body's proper end."""
    assert answer.names[0] == "start"
    assert answer.names[-2:] == ["error", "done"]
    assert not {"error", "done", "final"} & set(answer.names[:-2])
    error = answer.one("error")
    assert (error["code"], error["retryable"]) == (code, code in RETRYABLE)
    assert error["message"]
    assert error["request_id"] == answer.headers["x-request-id"]
    assert answer.one("done")["status"] == "failed"


def assert_keeps_secrets(gateway: Gateway, answer: Answer, shown: httpx.Response) -> None:
    """Nothing that the upstream said in its failure is anywhere."""
    said = [answer.body.decode(), str(answer.headers), shown.text, str(shown.headers)]
    for text in (*said, gateway.output):
        assert not [secret for secret in SECRETS if secret in text], text[-3000:]


@pytest.mark.parametrize(("script", "code", "calls"), FAILURES, ids=[row[0] for row in FAILURES])
async def test_a_failure_is_one_error_with_its_code_then_done(
    gateway: Gateway, simulator: SimulatorProcess, script: str, code: str, calls: int | None
) -> None:
    await assert_fails(gateway, simulator, script, code, calls)
    await is_alive(gateway)


async def test_every_kind_of_silence_has_its_clock(
    gateway: Gateway, simulator: SimulatorProcess
) -> None:
    began = time.monotonic()
    async with asyncio.TaskGroup() as tasks:
        for script, code in SILENCES:
            tasks.create_task(assert_fails(gateway, simulator, script, code, 1))

    assert time.monotonic() - began >= 2.9
    await is_alive(gateway)


async def assert_fails(
    gateway: Gateway, simulator: SimulatorProcess, script: str, code: str, calls: int | None
) -> None:
    word = marker()
    answer = await ask(gateway, f"sim:{script} {word}", bound_s=15)

    assert_failed(answer, code)
    if "how=rst" in script:  # a reset may overtake what was sent before it
        assert shown_before(script).startswith(answer.text)
        assert answer.text
    else:
        assert answer.text == shown_before(script), "partial text is kept"
    shown = await get(gateway, f"/runs/{answer.run_id}")
    body = shown.json()
    assert body["status"] == "failed"
    assert body["error"] == {
        name: answer.one("error")[name] for name in ("code", "message", "retryable")
    }
    assert body["last_seq"] == len(answer.events)
    assert_keeps_secrets(gateway, answer, shown)
    if calls is not None:
        assert simulator.stats(word)["started"] == calls
    await until(lambda: simulator.stats(word)["open"] == 0, "the upstream's connection is closed")


@pytest.mark.parametrize(("script", "reason"), COMPLETE, ids=[row[0] for row in COMPLETE])
async def test_an_answer_that_ends_early_for_a_stated_reason_is_complete(
    gateway: Gateway, script: str, reason: str
) -> None:
    answer = await ask(gateway, f"sim:{script}")

    assert answer.names[-2:] == ["final", "done"]
    assert answer.one("final")["finish_reason"] == reason
    assert answer.one("final")["text"] == answer.text == expected_text(f"sim:{script}")


async def test_an_answer_that_is_whole_does_not_wait_for_the_upstream_to_hang_up(
    gateway: Gateway,
) -> None:
    answer = await ask(gateway, "sim:noterm,after=5")

    assert answer.names[-2:] == ["final", "done"]
    assert answer.text == expected_text("sim:noterm,after=5")


@pytest.mark.parametrize(
    "first",
    ["status,code=503", "status,code=429", "status,code=408", "status,code=409"],
)
@pytest.mark.parametrize("times", [1, 2])
async def test_an_upstream_that_recovers_before_the_first_token_is_asked_again_unseen(
    gateway: Gateway, simulator: SimulatorProcess, first: str, times: int
) -> None:
    word = marker()
    answer = await ask(gateway, f"sim:{first},times={times},key={word},n=5,{AT_ONCE}")

    assert answer.names == ["start", *["token"] * 5, "final", "done"]
    assert answer.text == "tok0 tok1 tok2 tok3 tok4 "
    assert simulator.stats(word)["started"] == times + 1


async def test_a_fourth_attempt_is_never_made(
    gateway: Gateway, simulator: SimulatorProcess
) -> None:
    word = marker()
    answer = await ask(gateway, f"sim:status,times=3,key={word},n=5,{AT_ONCE}")

    assert_failed(answer, "upstream_unavailable")
    assert simulator.stats(word)["started"] == 3


async def test_an_upstream_that_hangs_up_without_a_word_is_asked_three_times(
    gateway: Gateway, simulator: SimulatorProcess
) -> None:
    """With the back-off, which may take longer than the first-token clock of 3 s allows."""
    word = marker()
    answer = await ask(gateway, f"sim:cut,how=nohead {word}")

    assert_failed(answer, "upstream_unavailable")
    assert 2 <= simulator.stats(word)["started"] <= 3


def in_two_seconds() -> str:
    return format_datetime(datetime.now(UTC) + timedelta(seconds=2), usegmt=True)


@pytest.mark.parametrize("form", ["seconds", "fraction", "date"])
async def test_the_upstreams_retry_after_is_waited_for(
    gateway: Gateway, simulator: SimulatorProcess, form: str
) -> None:
    value = {"seconds": "1", "fraction": "1.25", "date": quote(in_two_seconds())}[form]
    word = marker()
    answer = await ask(gateway, f"sim:status,code=429,times=1,key={word},n=5,retry_after={value}")

    assert answer.names[-2:] == ["final", "done"]
    refused, served = simulator.stats(word)["calls"]
    assert served["started_at"] - refused["ended_at"] >= 0.95  # a date has whole seconds only


NOT_A_TIME = ["soon", "-1", "", "1,2", "Wed, 31 Feb 2026 07:28:00 GMT"]
NOT_A_TIME += ["Wed, 21 Oct 99999999999999 07:28:00 GMT", "Wed, 21 Oct 2026 07:28:00 +99999999999"]


@pytest.mark.parametrize("value", NOT_A_TIME)
async def test_a_retry_after_that_says_nothing_changes_nothing(
    gateway: Gateway, simulator: SimulatorProcess, value: str
) -> None:
    word = marker()
    wait = f"retry_after={quote(value, safe='') or '%20'}"
    answer = await ask(gateway, f"sim:status,code=503,times=1,key={word},n=5,{wait}")

    assert answer.names == ["start", *["token"] * 5, "final", "done"], answer.body
    assert simulator.stats(word)["started"] == 2


async def test_a_retry_after_that_is_too_long_fails_at_once(
    gateway: Gateway, simulator: SimulatorProcess
) -> None:
    began = time.monotonic()
    answer = await ask(gateway, "sim:status,code=429,retry_after=3")

    assert_failed(answer, "upstream_rate_limited")
    assert time.monotonic() - began < 2.5
