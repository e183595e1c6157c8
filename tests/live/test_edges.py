"""What HTTP/1.1 lets two programs read in two ways, and heads without an end: on bare sockets."""

import asyncio
import json

import pytest

from tests.live.raw import BODIES, CHUNKED, LAST, REFUSED, exchange, post, statuses
from tests.live.reading import ask, chat, client
from tests.live.servers import Gateway, SimulatorProcess

pytestmark = pytest.mark.anyio


def question(prompt: str) -> bytes:
    """A request that starts a run, if anybody takes it for one."""
    path = f"/chat?on_disconnect=continue&text={prompt.replace(' ', '%20')}"
    return f"GET {path} HTTP/1.1\r\nHost: HOST\r\n\r\n".encode()


async def started(gateway: Gateway, simulator: SimulatorProcess, prompt: str) -> int:
    """Calls for that prompt, once a later one has been answered."""
    async with chat(gateway.url, ask("tokens,n=1")) as stream:
        await stream.until("done")
    stats = await asyncio.to_thread(simulator.stats, prompt)
    return int(stats["started"])


@pytest.mark.parametrize("sent", REFUSED.values(), ids=REFUSED)
async def test_what_can_be_read_in_two_ways_is_refused(
    gateway: Gateway, simulator: SimulatorProcess, sent: bytes
) -> None:
    prompt = ask("tokens,n=1")
    hidden = question(prompt)
    answers = await asyncio.to_thread(exchange, gateway.url, sent + LAST, hidden=hidden)

    assert statuses(answers) == [400]
    head, _, body = answers.partition(b"\r\n\r\n")
    assert b"connection: close" in head
    assert json.loads(body)["code"] == "invalid_request"
    assert await started(gateway, simulator, prompt) == 0


@pytest.mark.parametrize("sent", BODIES.values(), ids=BODIES)
async def test_a_body_is_no_request_whoever_waits_for_it(
    gateway: Gateway, simulator: SimulatorProcess, sent: list[bytes]
) -> None:
    prompt = ask("tokens,n=1")
    *before, last = sent
    sent = [*before, last + LAST]
    hidden = question(prompt)
    answers = await asyncio.to_thread(exchange, gateway.url, *sent, hidden=hidden)

    first, *_, final = statuses(answers)
    assert len(statuses(answers)) == 2 + (first == 100), answers
    assert final == 200, "what follows is read as a request again"
    assert await started(gateway, simulator, prompt) == 0


async def test_a_body_arrives_whatever_protocol_is_wished_for(gateway: Gateway) -> None:
    """As Java's client posts its first question."""
    body = json.dumps({"text": ask("tokens,n=1")}).encode()
    wish = post(
        b"Connection: Upgrade, HTTP2-Settings",
        b"Upgrade: h2c",
        b"HTTP2-Settings: AAMAAABk",
        b"Content-Type: application/json",
        b"Content-Length: %d" % len(body),
        path=b"/chat",
    )
    answers = await asyncio.to_thread(exchange, gateway.url, wish + body + LAST)

    assert statuses(answers) == [200, 200]
    assert b"event: final" in answers


async def test_the_gateway_is_no_proxy(gateway: Gateway) -> None:
    for target in (b"evil.example:443", b"/models"):
        connect = b"CONNECT %b HTTP/1.1\r\nHost: HOST\r\n\r\n" % target
        assert statuses(await asyncio.to_thread(exchange, gateway.url, connect + LAST)) in (
            [400],
            [405],
        )
    own = LAST.replace(b"/health", b"http://HOST/health")
    assert statuses(await asyncio.to_thread(exchange, gateway.url, own)) == [200]


def headers(count: int) -> bytes:
    return b"".join(b"x-%d: y\r\n" % number for number in range(count))


GET = LAST[:-2]
LONG = 900_000
HEADS = {
    "100 headers": (GET + headers(98) + b"\r\n", 200),
    "101 headers": (GET + headers(99) + b"\r\n", 431),
    "a header without an end": (GET + b"x: " + b"y" * LONG, 431),
    "a name without an end": (GET + b"x" * LONG, 431),
    "an address without an end": (b"GET /" + b"x" * LONG, 414),
    "99 trailers": (post(CHUNKED) + b"0\r\n" + headers(99) + b"\r\n", 431),
    "a trailer without an end": (post(CHUNKED) + b"0\r\nx: " + b"y" * LONG, 405),
    "an extension without an end": (post(CHUNKED) + b"1;" + b"x" * LONG, 405),
}


@pytest.mark.parametrize(("sent", "status"), HEADS.values(), ids=HEADS)
async def test_nothing_of_a_head_grows_without_bound(
    gateway: Gateway, sent: bytes, status: int
) -> None:
    """The connection ends; a body that goes wrong behind its answer, 405 here, gets no other."""
    answers = await asyncio.to_thread(exchange, gateway.url, sent)
    assert statuses(answers) == [status]


async def test_garbage_behind_a_question_spoils_no_answer(gateway: Gateway) -> None:
    """A second answer in the middle of the first would be read as part of it."""
    prompt = ask("tokens,n=20,interval=0.02").replace(" ", "%20")
    sent = b"GET /chat?text=%b HTTP/1.1\r\nHost: HOST\r\n\r\nnonsense" % prompt.encode()
    answers = await asyncio.to_thread(exchange, gateway.url, sent)

    assert statuses(answers) == [200]
    assert answers.endswith(b"\r\n0\r\n\r\n")
    assert b"event: done" in answers


async def test_every_answer_says_what_browsers_may_do_with_it(gateway: Gateway) -> None:
    async with client(gateway.url) as http:
        answers = [
            await http.get("/"),
            await http.get("/docs"),
            await http.get("/app.js"),
            await http.get("/models"),
            await http.get("/nothing"),
            await http.post("/chat", content=b"x"),
            await http.get("/models", headers={"origin": "https://evil.example"}),
            await http.get("/chat", params={"text": ask("tokens,n=1")}),
        ]
    for answer in answers:
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["cross-origin-resource-policy"] == "same-origin"
        assert answer.headers["cache-control"].startswith("no-")
        assert "server" not in answer.headers
        assert len(answer.headers.multi_items()) == len(answer.headers), "one stands twice"
    for page in answers[:2]:
        assert page.headers["cross-origin-opener-policy"] == "same-origin"
        assert page.headers["permissions-policy"]
    raw = await asyncio.to_thread(exchange, gateway.url, b"nonsense\r\n\r\n")
    assert b"x-content-type-options: nosniff" in raw
    assert b"server:" not in raw.lower()
