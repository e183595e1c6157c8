"""Streams through the load balancer: what it must not keep back, cut or change."""

import json
from urllib.parse import quote

import httpx
import pytest

from tests.deploy.behind import ENDLESS, Pair, Plain, asked, http2
from tests.live.leaving import LEAVE, calling, ended
from tests.live.reading import HEARTBEAT, ask, chat, client, names, opened, stats
from tests.live.servers import SimulatorProcess
from tests.nginx import running_nginx

pytestmark = pytest.mark.anyio

JSON = ("-H", "content-type: application/json")


async def test_tokens_arrive_while_the_model_still_speaks(
    pair: Pair, upstream: SimulatorProcess
) -> None:
    prompt = ask("stall,after=5")
    async with chat(pair.nginx.url, prompt) as stream:
        assert names(await stream.events(6)) == ["start", *["token"] * 5]
        assert (await stream.head())["x-accel-buffering"] == "no"
        assert (await stats(upstream, prompt))["open"] == 1


async def test_nothing_is_kept_back_even_if_the_gateway_does_not_ask_for_it() -> None:
    async with Plain().listening() as gateway:
        with running_nginx([gateway.port]) as nginx:
            async with opened(nginx.url, "GET", "/") as stream:
                await stream.head()
                for _ in range(3):
                    gateway.beat()
                    assert await stream.write() == HEARTBEAT


async def test_tokens_arrive_one_by_one_over_http_2_and_tls(
    pair: Pair, upstream: SimulatorProcess
) -> None:
    prompt = ask(ENDLESS)
    body = json.dumps({"text": prompt})
    async with http2(pair.nginx, "/chat", *JSON, "-d", body) as stream:
        assert stream.head[0].startswith("http/2 200")
        await stream.until(lambda seen: len(seen.events) >= 4)
        assert len(stream.events) < 50, "kept back, and then all at once"
        assert (await stats(upstream, prompt))["open"] == 1


async def test_heartbeats_pass_while_the_model_is_silent(pair: Pair) -> None:
    async with chat(pair.nginx.url, ask("silent")) as stream:
        while HEARTBEAT not in stream.writes:
            assert await stream.write()
    async with http2(pair.nginx, f"/chat?text={quote(ask('silent'))}") as stream:
        await stream.until(lambda seen: seen.body.endswith(HEARTBEAT))


@pytest.mark.parametrize("how", LEAVE)
async def test_a_client_that_leaves_ends_its_run_behind_the_balancer(
    pair: Pair, upstream: SimulatorProcess, how: str
) -> None:
    prompt = ask(ENDLESS)
    async with chat(pair.nginx.url, prompt) as stream:
        await stream.events(3)
        LEAVE[how](stream)

        (call,) = await ended(upstream, prompt)
        assert call["outcome"] == "aborted"


async def test_a_client_that_leaves_over_http_2_ends_its_run(
    pair: Pair, upstream: SimulatorProcess
) -> None:
    prompt = ask("silent")
    async with http2(pair.nginx, f"/chat?text={quote(prompt)}") as stream:
        await calling(upstream, prompt)
        stream.leave()

        (call,) = await ended(upstream, prompt)
        assert call["outcome"] == "aborted"


async def test_both_gateways_get_work(pair: Pair) -> None:
    async with client(pair.nginx.url) as http:
        started = [await http.post("/runs", json={"text": ask("tokens,n=1")}) for _ in range(8)]

    assert [response.status_code for response in started] == [201] * 8
    assert {pair.writer(response.json()["run_id"]) for response in started} == {0, 1}


async def test_a_body_of_a_megabyte_passes_and_one_of_five_is_refused_in_our_form(
    pair: Pair,
) -> None:
    question = json.dumps({"text": ask("tokens,n=1")}).encode()
    headers = {"content-type": "application/json"}
    async with client(pair.nginx.url) as http:
        passes = await http.post("/chat", content=b" " * 2**20 + question, headers=headers)
        refused = await http.post("/chat", content=b" " * 5 * 2**20 + question, headers=headers)

    assert (passes.status_code, passes.text.count("event: final")) == (200, 1)
    assert refused.status_code == 413
    assert refused.headers["content-type"] == "application/problem+json"
    assert refused.json()["code"] == "payload_too_large"
    assert refused.json()["request_id"] == refused.headers["x-request-id"]


async def test_what_is_too_long_is_the_gateways_to_say(pair: Pair) -> None:
    async with client(pair.nginx.url) as http:
        address = await http.get("/chat", params={"text": ask("tokens,n=1", "a" * 60_000)})
        headers = await http.get("/models", headers={"x-long": "a" * 60_000})

    assert address.status_code == 200
    assert headers.status_code == 200
    async with opened(pair.nginx.url, "GET", "/chat?text=" + "a" * 66_000) as stream:
        assert (await stream.problem())["code"] == "uri_too_long"


async def test_the_page_works_over_tls_and_other_sites_pages_do_not(pair: Pair) -> None:
    own = pair.nginx.tls_url
    async with httpx.AsyncClient(base_url=own, verify=pair.nginx.trust(), trust_env=False) as http:
        page = await http.get("/")
        question = {"text": ask("tokens,n=1")}
        ours = await http.post("/chat", json=question, headers={"origin": own})
        theirs = await http.post("/chat", json=question, headers={"origin": "https://other.test"})

    assert page.status_code == 200
    assert "text/html" in page.headers["content-type"]
    assert ours.status_code == 200
    assert theirs.status_code == 403
    async with http2(
        pair.nginx, "/chat", *JSON, "-H", f"origin: {own}", "-d", json.dumps(question)
    ) as stream:
        assert stream.head[0].startswith("http/2 200")


async def test_a_reload_cuts_no_stream(pair: Pair) -> None:
    async with chat(pair.nginx.url, ask(ENDLESS)) as stream:
        await stream.events(3)
        before = pair.nginx.workers
        pair.nginx.reload()

        await stream.events(5)
        assert before & pair.nginx.workers, "who has the stream stays"
        status, _ = await asked(pair.nginx, ask("tokens,n=1"))
        assert status == 200


async def test_one_request_id_is_known_on_both_sides(pair: Pair) -> None:
    async with client(pair.nginx.url) as http:
        given = await http.get("/models", headers={"x-request-id": "mine-1"})
        made = await http.get("/models", headers={"x-request-id": "not mine"})

    assert given.headers["x-request-id"] == "mine-1"
    await pair.nginx.logs(made.headers["x-request-id"])
    assert made.headers["x-request-id"] != "not mine"
