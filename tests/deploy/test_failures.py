"""Gateways that are down, drain or die behind the load balancer: nobody loses a request to one that
could not take it, and no model is asked twice."""

import asyncio
import signal
from collections.abc import Callable

import httpx
import pytest

from tests.deploy.behind import ENDLESS, Deaf, Pair, asked
from tests.live.reading import ask, chat, client, stats, until
from tests.live.servers import PLAIN, Gateway, SimulatorProcess
from tests.nginx import running_nginx

pytestmark = pytest.mark.anyio

ONE = "tokens,n=1"


async def all_answered_once(pair: Pair, upstream: SimulatorProcess, count: int) -> None:
    """Ask at the same time, half by POST and half by GET."""
    prompts = [ask(ONE) for _ in range(count)]
    answers = await asyncio.gather(
        *(asked(pair.nginx, prompt, get=at % 2 == 0) for at, prompt in enumerate(prompts))
    )
    assert {status for status, _ in answers} == {200}
    assert all("event: final" in body for _, body in answers)
    for prompt in prompts:
        assert (await stats(upstream, prompt))["started"] == 1


async def draining(gateway: Gateway) -> None:
    gateway.signal(signal.SIGTERM)

    async def ready() -> int:
        return (await asyncio.to_thread(httpx.get, f"{gateway.url}/ready", **PLAIN)).status_code

    await until(ready, lambda status: status == 503, "/ready says that it drains")


async def busy(gateway: Gateway) -> str:
    """Give it a run that outlasts the test."""
    async with client(gateway.url) as http:
        question = {"text": ask(ENDLESS), "on_disconnect": "continue"}
        return str((await http.post("/runs", json=question)).json()["run_id"])


async def test_a_killed_gateway_costs_nobody_a_request(
    start_pair: Callable[..., Pair], upstream: SimulatorProcess
) -> None:
    pair = await asyncio.to_thread(start_pair)
    await all_answered_once(pair, upstream, 12)
    pair.gateways[0].signal(signal.SIGKILL)
    pair.gateways[0].wait()

    await all_answered_once(pair, upstream, 20)


async def test_a_draining_gateway_costs_nobody_a_request(
    start_pair: Callable[..., Pair], upstream: SimulatorProcess
) -> None:
    pair = await asyncio.to_thread(start_pair, drain_seconds=60)
    run_id = await busy(pair.gateways[0])
    await draining(pair.gateways[0])

    await all_answered_once(pair, upstream, 20)
    assert pair.writer(run_id) == 0, "it still drains"


async def test_a_gateway_that_stops_under_load_costs_no_request(
    start_pair: Callable[..., Pair], upstream: SimulatorProcess
) -> None:
    pair = await asyncio.to_thread(start_pair)
    leaving = pair.gateways[1]
    ends = asyncio.create_task(asyncio.to_thread(leaving.wait))
    leaving.signal(signal.SIGTERM)
    prompts: list[str] = []
    answers: list[tuple[int, str]] = []
    while not ends.done() or not answers:
        some = [ask(ONE) for _ in range(8)]
        prompts += some
        answers += await asyncio.gather(*(asked(pair.nginx, prompt) for prompt in some))

    assert await ends == 0
    for prompt, (status, body) in zip(prompts, answers, strict=True):
        assert status == 200, body
        assert (await stats(upstream, prompt))["started"] == 1
    await all_answered_once(pair, upstream, 8)


async def test_where_one_drains_and_one_is_away_the_answer_is_a_503(
    start_pair: Callable[..., Pair],
) -> None:
    pair = await asyncio.to_thread(start_pair, drain_seconds=60)
    pair.gateways[0].signal(signal.SIGKILL)
    pair.gateways[0].wait()
    await busy(pair.gateways[1])
    await draining(pair.gateways[1])

    answers = [await asked(pair.nginx, ask(ONE), get=get) for get in (False, True) * 3]
    assert {status for status, _ in answers} == {503}


async def test_where_all_refuse_the_last_refusal_is_the_answer(
    start_pair: Callable[..., Pair],
) -> None:
    pair = await asyncio.to_thread(start_pair, drain_seconds=60)
    for gateway in pair.gateways:
        await busy(gateway)
        await draining(gateway)
    async with client(pair.nginx.url) as http:
        refused = await http.post("/chat", json={"text": ask(ONE)})

    assert (refused.status_code, refused.json()["code"]) == (503, "draining")
    assert refused.headers["retry-after"]


async def test_a_full_gateway_is_passed_over_for_runs_and_serves_the_rest(
    start_pair: Callable[..., Pair], upstream: SimulatorProcess
) -> None:
    pair = await asyncio.to_thread(start_pair, max_runs=1)
    await busy(pair.gateways[0])
    await all_answered_once_in_turn(pair, upstream, 4)
    await busy(pair.gateways[1])
    async with client(pair.nginx.url) as http:
        refused = [await http.post("/chat", json={"text": ask(ONE)}) for _ in range(3)]
        served = [await http.get("/models") for _ in range(6)]

    assert [(full.status_code, full.json()["code"]) for full in refused] == [
        (503, "overloaded")
    ] * 3
    assert {response.status_code for response in served} == {200}


async def all_answered_once_in_turn(pair: Pair, upstream: SimulatorProcess, count: int) -> None:
    for _ in range(count):
        await all_answered_once(pair, upstream, 1)


@pytest.mark.parametrize("get", [False, True], ids=["POST", "GET"])
async def test_a_question_that_was_sent_is_never_sent_again(
    pair: Pair, upstream: SimulatorProcess, get: bool
) -> None:
    async with Deaf().listening() as deaf:
        with running_nginx([deaf.port, pair.ports[0]]) as nginx:
            prompts = [ask(ONE) for _ in range(4)]
            answers = [await asked(nginx, prompt, get=get) for prompt in prompts]

            assert deaf.taken
            for prompt, (status, body) in zip(prompts, answers, strict=True):
                word = prompt.split(" ")[1].encode()
                taken = sum(word in request for request in deaf.taken)
                started = (await stats(upstream, prompt))["started"]
                assert taken + started == 1
                assert status == (502 if taken else 200)
                assert ("worker_lost" in body) == bool(taken)


async def test_what_only_reads_is_asked_elsewhere(pair: Pair) -> None:
    async with chat(pair.gateways[0].url, ask(ENDLESS)) as stream, Deaf().listening() as deaf:
        run_id = await stream.run_id()
        with running_nginx([deaf.port, pair.ports[0]]) as nginx:
            async with client(nginx.url) as http:
                answers = [(await http.get(f"/runs/{run_id}")).status_code for _ in range(4)]

    assert deaf.taken
    assert answers == [200] * 4


async def test_with_no_gateway_at_all_the_answer_is_a_503_in_our_form(pair: Pair) -> None:
    async with Deaf().listening() as deaf:
        free = deaf.port
    with running_nginx([free]) as nginx:
        for get in (False, True):
            status, body = await asked(nginx, ask(ONE), get=get)
            assert status == 503
            assert '"code":"overloaded"' in body


async def test_a_gateway_hears_who_asked_whatever_the_client_says(pair: Pair) -> None:
    forged = {"x-forwarded-for": "192.0.2.1", "forwarded": "for=192.0.2.1"}
    async with Deaf().listening() as deaf:
        with running_nginx([deaf.port]) as nginx:
            async with client(nginx.url) as http:
                await http.get("/models", headers=forged)
            port = nginx.port
    (request,) = deaf.taken

    assert b"192.0.2.1" not in request
    for line in (
        f"Host: 127.0.0.1:{port}",
        "X-Forwarded-For: 127.0.0.1",
        "X-Forwarded-Proto: http",
    ):
        assert f"{line}\r\n".encode() in request


async def test_questions_and_ids_stand_in_no_log_whatever_goes_wrong(pair: Pair) -> None:
    secret = "correct-horse"
    async with Deaf().listening() as deaf:
        with running_nginx([deaf.port]) as nginx:
            async with client(nginx.url) as http:
                for _ in range(2):
                    await http.get("/chat", params={"text": secret})
                    await http.get(f"/conversations/{secret}")
                    await http.get(f"/{secret}" * 4_000)
            nginx.balance([1, *pair.ports])
            nginx.reload()
            await asked(nginx, secret, get=True)
            said = nginx.said

    assert "GET /chat HTTP/1.1 502" in said
    assert "GET /conversations HTTP/1.1" in said
    assert secret not in said.replace(f"GET /{secret} ", "")
