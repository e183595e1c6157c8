"""The browser's own ``EventSource``: the page's switch, and a bare one as anybody writes it."""

import json
import re
from typing import Any
from urllib.parse import urlencode

import pytest
from playwright.sync_api import Page, expect

from app.simulator import expected_text
from tests.live.asking import marker
from tests.live.browser import NETWORK, ChatPage, Visitor, upstream_ends, wait_until
from tests.live.cutting_proxy import CuttingProxy, Exchange, Fate, cutting_proxy
from tests.live.servers import Gateway, SimulatorProcess

_OPEN = """(url) => {
  window.source = new EventSource(url);
  window.got = [];
  const types = ['message', 'start', 'token', 'final', 'error', 'done'];
  for (const type of types) {
    source.addEventListener(type, (event) =>
      got.push({ type, data: event.data ?? null, id: event.lastEventId ?? null }));
  }
}"""
CLOSED = 2


class Bare:
    """An ``EventSource`` that nobody closes."""

    def __init__(self, page: Page, prompt: str, **query: Any) -> None:
        self._page = page
        page.evaluate(_OPEN, "/chat?" + urlencode({"text": prompt, **query}))

    @property
    def events(self) -> list[dict[str, Any]]:
        """What was dispatched so far; ``data`` is null where the browser made the event."""
        got: list[dict[str, Any]] = self._page.evaluate("() => got")
        return got

    @property
    def texts(self) -> dict[str, str]:
        """The texts of each type of event, joined."""
        texts: dict[str, str] = {"token": "", "final": ""}
        for event in self.events:
            if event["type"] in texts:
                texts[event["type"]] += json.loads(event["data"])["text"]
        return texts

    def gives_up(self) -> None:
        """Wait until the browser will not connect any more."""
        ready = "() => source.readyState"
        wait_until(lambda: self._page.evaluate(ready) == CLOSED, "CLOSED", self._page)


def cursors(exchanges: list[Exchange]) -> list[int]:
    """The numbers in ``Last-Event-ID``; 0 without one."""
    ids = (each.headers.get("last-event-id", ".0") for each in exchanges)
    return [int(last.rpartition(".")[2]) for last in ids]


def test_a_bare_eventsource_gets_typed_events_and_stops_after_done(
    cut_chat: ChatPage, proxy: CuttingProxy, simulator: SimulatorProcess
) -> None:
    word = marker()
    bare = Bare(cut_chat.page, f"sim:tokens,n=3 {word}")
    bare.gives_up()

    kinds = [event["type"] for event in bare.events if event["data"] is not None]
    assert kinds == ["start", "token", "token", "token", "final", "done"]
    assert [each.status for each in proxy.asked("/chat")] == [200, 204]
    assert cursors(proxy.asked("/chat")) == [0, 6]
    assert simulator.stats(word)["started"] == 1


@pytest.mark.parametrize("prompt", ["sim:awkward", "sim:tokens,n=12,interval=0.03"])
def test_a_bare_eventsource_that_is_cut_behind_every_event_misses_none(
    cut_chat: ChatPage, proxy: CuttingProxy, simulator: SimulatorProcess, prompt: str
) -> None:
    word = marker()
    proxy.fates.extend([Fate("end", events=1)] * 100)
    bare = Bare(cut_chat.page, f"{prompt} {word}")
    bare.gives_up()

    assert bare.texts["token"] == bare.texts["final"] == expected_text(prompt)
    ids = [event["id"] for event in bare.events if event["data"] is not None]
    assert [int(each.rpartition(".")[2]) for each in ids] == list(range(1, len(ids) + 1))
    asked = proxy.asked("/chat")
    assert [each.status for each in asked] == [200] * len(ids) + [204]
    assert cursors(asked) == list(range(len(ids) + 1))
    assert simulator.stats(word)["started"] == 1


def test_a_bare_eventsource_that_is_cut_inside_events_misses_none(
    cut_chat: ChatPage, proxy: CuttingProxy, simulator: SimulatorProcess
) -> None:
    prompt, word = "sim:tokens,n=40,interval=0.005", marker()
    for k in range(20):
        proxy.fates += [Fate("end", size=600 + 7 * k), Fate("reset", size=600 + 7 * k)]
    bare = Bare(cut_chat.page, f"{prompt} {word}", idempotency_key=word)
    bare.gives_up()

    assert bare.texts["token"] == bare.texts["final"] == expected_text(prompt)
    assert proxy.cuts > 3
    assert simulator.stats(word)["started"] == 1


def test_a_server_error_has_data_and_a_lost_connection_has_none(
    cut_chat: ChatPage, proxy: CuttingProxy
) -> None:
    proxy.fates.append(Fate("end", events=2))
    bare = Bare(cut_chat.page, "sim:eof,after=3")
    bare.gives_up()

    kinds = [event["type"] for event in bare.events]
    assert kinds == ["start", "token", "error", "token", "token", "error", "done", "error", "error"]
    lost, told, over, refused = (event for event in bare.events if event["type"] == "error")
    assert json.loads(told["data"])["code"] == "upstream_broken"
    assert [lost["data"], over["data"], refused["data"]] == [None, None, None]


def test_a_bare_eventsource_shows_no_message_for_a_heartbeat(
    visitor: Visitor, gateway: Gateway
) -> None:
    """The gateway that beats every 0.5 s."""
    with cutting_proxy(gateway.url) as proxy:
        bare = Bare(visitor.chat(proxy.url).page, "sim:slow,first=1.5")
        bare.gives_up()

        assert bare.texts["token"] == expected_text("sim:slow")
        assert "message" not in [event["type"] for event in bare.events]


def with_switch(chat: ChatPage) -> None:
    chat.page.get_by_role("checkbox", name="Use EventSource").check()


@pytest.mark.parametrize("prompt", ["sim:awkward", "sim:tokens,n=500", "sim:big"])
def test_the_page_shows_exactly_the_same_through_eventsource(chat: ChatPage, prompt: str) -> None:
    with_switch(chat)
    chat.ask(prompt)

    assert chat.completes() == expected_text(prompt)


def test_the_switched_page_reconnects_and_closes_at_the_end(
    cut_chat: ChatPage, proxy: CuttingProxy, simulator: SimulatorProcess
) -> None:
    word = marker()
    proxy.fates.extend([Fate("end", events=2)] * 3)
    with_switch(cut_chat)
    cut_chat.ask(f"sim:tokens,n=9 {word}")

    assert cut_chat.completes() == expected_text("sim:tokens,n=9")
    assert any(said == "The connection was lost, reconnecting…" for said in cut_chat.said)
    asked = proxy.asked("/chat")
    assert [each.method for each in asked] == ["GET"] * 4
    assert cursors(asked) == [0, 2, 4, 6]
    assert cut_chat.page.evaluate("() => fetch('/health').then((r) => r.status)") == 200
    assert len(proxy.asked("/chat")) == 4, "closed by the page, so not even a 204"
    assert simulator.stats(word)["started"] == 1


def test_the_switched_page_joins_its_run_when_the_first_head_was_lost(
    cut_chat: ChatPage, proxy: CuttingProxy, simulator: SimulatorProcess
) -> None:
    """Without an id there is no ``Last-Event-ID``: the key in the address does it. The browser's
    own first delay is 3 s."""
    word = marker()
    proxy.fates.append(Fate("end", size=50))
    with_switch(cut_chat)
    cut_chat.ask(f"sim:tokens,n=3 {word}")

    assert cut_chat.completes() == expected_text("sim:tokens,n=3")
    assert simulator.stats(word)["started"] == 1


def test_the_switched_page_stops(chat: ChatPage, simulator: SimulatorProcess) -> None:
    word = marker()
    with_switch(chat)
    chat.ask(f"sim:tokens,n=100000,interval=0.02 {word}")
    expect(chat.answer).to_contain_text("tok2 ")
    chat.page.keyboard.press("Escape")

    chat.says("Stopped.")
    upstream_ends(simulator, word, "aborted")


def test_the_switched_page_tells_failures_in_words(visitor: Visitor, gateway: Gateway) -> None:
    chat = visitor.chat(gateway.url)
    with_switch(chat)
    chat.ask("sim:eof,after=2")

    chat.says("The model's answer broke off.")
    expect(chat.again).to_be_visible()
    assert chat.text == "tok0 tok1 "


def test_a_question_too_long_for_an_address_is_told_as_that(
    visitor: Visitor, page_gateway: Gateway
) -> None:
    visitor.allow(NETWORK)
    chat = visitor.chat(page_gateway.url)
    with_switch(chat)
    chat.ask("x" * 70_000)  # longer than an address may be

    chat.says(re.compile("The question is too long for EventSource"))
    expect(chat.again).to_be_visible()
