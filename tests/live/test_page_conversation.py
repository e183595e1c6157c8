"""The chat page goes on with its conversation, and shows no text that was taken back."""

import json
import re
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from playwright.sync_api import Request, expect

from tests.live.browser import NETWORK, ChatPage, Visitor, texts, wait_until
from tests.live.cutting_proxy import Fate, cutting_proxy
from tests.live.servers import PLAIN, Gateway

CALCULATE = 'sim:tool,name=calculate,args={"expression":"6*7"},preamble=1'
SAYS = "The tool says: 42"
ways = pytest.mark.parametrize("way", ["fetch", "EventSource"])


@pytest.fixture
def talk(visitor: Visitor, equipped: Gateway) -> ChatPage:
    return visitor.chat(equipped.url)


def by(way: str, chat: ChatPage) -> None:
    if way == "EventSource":
        chat.page.get_by_role("checkbox", name="Use EventSource").check()


def named(request: Request) -> str | None:
    """The conversation that a question wants to go on with."""
    if request.method == "POST":
        name: str | None = json.loads(request.post_data or "").get("conversation_id")
        return name
    return parse_qs(urlsplit(request.url).query).get("conversation_id", [None])[0]


def asks(chat: ChatPage, text: str) -> str | None:
    with chat.page.expect_request("**/chat*") as asked:
        chat.ask(text)
    return named(asked.value)


@ways
def test_the_next_question_goes_on_with_the_conversation_and_a_new_chat_does_not(
    talk: ChatPage, way: str
) -> None:
    by(way, talk)
    assert asks(talk, "sim:echo first") is None
    talk.completes()
    conversation = asks(talk, "sim:history")
    assert conversation
    assert "sim:echo first" in talk.completes()
    assert asks(talk, "sim:echo third") == conversation
    talk.completes()

    talk.fresh.click()
    assert asks(talk, "sim:history") is None
    assert "sim:echo first" not in talk.completes()
    assert asks(talk, "sim:echo other") not in (None, conversation)
    talk.completes()


def test_the_two_ways_to_ask_share_the_conversation(talk: ChatPage) -> None:
    talk.ask("sim:echo first")
    talk.completes()
    by("EventSource", talk)
    talk.ask("sim:history")

    assert "sim:echo first" in talk.completes()


def test_a_new_chat_while_an_answer_runs_begins_another_conversation(talk: ChatPage) -> None:
    talk.ask("sim:tokens,n=100000,interval=0.02")
    expect(talk.answer).to_contain_text("tok2 ")
    talk.fresh.click()

    assert asks(talk, "sim:echo at once") is None
    assert talk.completes() == "at once"
    assert texts(talk.page.locator("#log .text")) == ["sim:echo at once", "at once"]


@ways
def test_a_text_that_is_taken_back_is_shown_and_then_gone(talk: ChatPage, way: str) -> None:
    by(way, talk)
    talk.ask(f"{CALCULATE},interval=0.05")

    assert talk.completes() == SAYS
    last_empty = max(k for k, length in enumerate(talk.lengths) if length == 0)
    assert max(talk.lengths[:last_empty]) > 0, "it was there, and then it was not"


def test_a_text_that_was_taken_back_stays_away_through_a_cut_behind_every_event(
    visitor: Visitor, equipped: Gateway
) -> None:
    visitor.allow(NETWORK)
    with cutting_proxy(equipped.url) as proxy:
        chat = visitor.chat(proxy.url)
        proxy.fates.extend([Fate("end", events=1)] * 100)
        chat.ask(CALCULATE)
        assert chat.completes() == SAYS
        assert proxy.cuts > 3


def test_a_conversation_that_was_deleted_is_told_and_asking_again_begins_another(
    visitor: Visitor, talk: ChatPage
) -> None:
    visitor.allow(NETWORK)
    talk.ask("sim:echo first")
    talk.completes()
    conversation = asks(talk, "sim:echo second")
    talk.completes()
    deleted = httpx.delete(f"{talk.url}/conversations/{conversation}", **PLAIN)
    assert deleted.status_code == 204

    assert asks(talk, "sim:history") == conversation
    talk.says("This conversation is no longer on the gateway. Asking again starts a new one.")
    talk.again.click()
    assert "sim:echo first" not in talk.completes()


def test_eventsource_cannot_tell_why_and_asking_without_it_does(
    visitor: Visitor, talk: ChatPage
) -> None:
    visitor.allow(NETWORK)
    talk.ask("sim:echo first")
    talk.completes()
    by("EventSource", talk)
    httpx.delete(f"{talk.url}/conversations/{asks(talk, 'sim:echo second')}", **PLAIN)
    talk.ask("sim:echo third")
    talk.says(re.compile("EventSource does not tell why. Asking without it does."))
    talk.page.get_by_role("checkbox").uncheck()
    talk.again.click()

    talk.says(re.compile("This conversation is no longer on the gateway."))


def test_a_question_to_a_busy_conversation_is_answered_once_it_is_free(
    visitor: Visitor, talk: ChatPage
) -> None:
    """Somebody else asks in it: another tab, say."""
    visitor.allow(NETWORK)
    talk.ask("sim:echo first")
    talk.completes()
    conversation = asks(talk, "sim:echo second")
    talk.completes()
    other = {"text": "sim:silent", "conversation_id": conversation, "on_disconnect": "continue"}
    run = httpx.post(f"{talk.url}/runs", json=other, **PLAIN).json()
    talk.ask("sim:echo third")
    busy = "Another answer in this conversation is still being written, trying again in"
    wait_until(lambda: any(said.startswith(busy) for said in talk.said), "it says so", talk.page)
    httpx.delete(f"{talk.url}/runs/{run['run_id']}", **PLAIN)

    assert talk.completes() == "third"


def test_a_conversation_that_stays_busy_is_left_to_the_reader(
    visitor: Visitor, talk: ChatPage
) -> None:
    visitor.allow(NETWORK)
    problem = json.dumps({"code": "conversation_busy", "detail": "Busy."})
    headers = {"Retry-After": "60", "Content-Type": "application/problem+json"}
    busy = {"status": 409, "headers": headers, "body": problem}
    talk.page.route("**/chat", lambda route: route.fulfill(**busy), times=1)
    talk.ask("sim:echo first")

    talk.says(re.compile("still being written. A new chat does not have to wait for it.$"))
    talk.fresh.click()
    talk.ask("sim:echo second")
    assert talk.completes() == "second"
