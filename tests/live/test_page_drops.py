"""The chat page through a bad network: what was lost comes again, and nothing comes twice."""

import re
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import expect

from app.simulator import expected_text
from tests.live.asking import marker
from tests.live.browser import NETWORK, ChatPage, Visitor, wait_until
from tests.live.cutting_proxy import CuttingProxy, Exchange, Fate, cutting_proxy
from tests.live.servers import Gateway, SimulatorProcess

SILENT = re.compile(r"The connection went silent, reconnecting in [0-9]+ s…")
GONE = re.compile(r"The server that wrote this answer went down, trying again in [0-9]+ s…")
LOST = re.compile(r"The connection was lost, reconnecting in [0-9]+ s…")


def cursor(exchange: Exchange) -> int:
    """The number in ``Last-Event-ID``; 0 without one."""
    return int(exchange.headers.get("last-event-id", ".0").rpartition(".")[2])


def test_an_answer_that_is_cut_again_and_again_is_shown_exactly_once(
    cut_chat: ChatPage, proxy: CuttingProxy, simulator: SimulatorProcess
) -> None:
    """Behind more and more bytes, so that the cuts fall into all parts of an event. Every other
    one is a reset, which may take everything along that came on its connection."""
    prompt, word = "sim:tokens,n=100,interval=0.005", marker()
    least = 1000  # no event is longer, so that every other connection brings news
    for k in range(20):
        proxy.fates += [Fate("end", size=least + 7 * k), Fate("reset", size=least + 7 * k)]
    cut_chat.ask(f"{prompt} {word}")

    assert cut_chat.completes() == expected_text(prompt)
    assert proxy.cuts > 5
    assert any(LOST.fullmatch(said) for said in cut_chat.said)
    cursors = [cursor(each) for each in proxy.streams]
    assert cursors == sorted(cursors)
    assert simulator.stats(word)["started"] == 1


def test_awkward_text_survives_a_cut_behind_every_single_event(
    cut_chat: ChatPage, proxy: CuttingProxy, simulator: SimulatorProcess
) -> None:
    word = marker()
    proxy.fates.extend([Fate("end", events=1)] * 100)
    cut_chat.ask(f"sim:awkward {word}")

    assert cut_chat.completes() == expected_text("sim:awkward")
    assert [cursor(each) for each in proxy.streams] == list(range(len(proxy.streams)))
    assert simulator.stats(word)["started"] == 1


def test_an_answer_whose_head_is_lost_is_joined_by_its_key(
    cut_chat: ChatPage, proxy: CuttingProxy, simulator: SimulatorProcess
) -> None:
    word = marker()
    proxy.fates += [Fate("end", size=0), Fate("reset", size=0), Fate("end", size=9)]
    cut_chat.ask(f"sim:tokens,n=5 {word}")

    assert cut_chat.completes() == expected_text("sim:tokens,n=5")
    assert len({each.headers["idempotency-key"] for each in proxy.asked("POST /chat")}) == 1
    assert len(proxy.asked("POST /chat")) == 4
    assert simulator.stats(word)["started"] == 1


@pytest.fixture
def quick_beats(start_gateway: Callable[..., Gateway]) -> Gateway:
    """Three heartbeats take 2.1 s: what the page waits before it calls a connection dead."""
    return start_gateway(heartbeat_seconds=0.7)


def test_a_connection_that_goes_silent_is_noticed_and_replaced(
    visitor: Visitor, quick_beats: Gateway, simulator: SimulatorProcess
) -> None:
    visitor.allow(NETWORK)
    word = marker()
    with cutting_proxy(quick_beats.url) as proxy:
        chat = visitor.chat(proxy.url)
        proxy.fates.append(Fate("silence", events=4))
        chat.ask(f"sim:tokens,n=9 {word}")

        assert chat.completes() == expected_text("sim:tokens,n=9")
        assert any(SILENT.fullmatch(said) for said in chat.said)
        assert [cursor(each) for each in proxy.streams[:2]] == [0, 4]
    assert simulator.stats(word)["started"] == 1


def test_heartbeats_keep_a_silent_connection_and_show_nothing(
    visitor: Visitor, quick_beats: Gateway
) -> None:
    """The model is silent for longer than three heartbeats."""
    chat = visitor.chat(quick_beats.url)
    chat.ask("sim:slow,first=3")
    chat.says("Waiting for the answer…")

    assert chat.completes() == expected_text("sim:slow")
    assert chat.said == ["Sending…", "Waiting for the answer…", "Answering…", "Answer complete."]
    assert all(chat.lengths[2:]), "nothing but the answer changed the answer"
    assert len([each for each in visitor.requests if each.method == "POST"]) == 1


def test_a_question_that_meets_no_gateway_is_answered_once_there_is_one(
    visitor: Visitor, start_gateway: Callable[..., Gateway], simulator: SimulatorProcess
) -> None:
    visitor.allow(NETWORK)
    first = start_gateway()
    chat = visitor.chat(first.url)
    word = marker()
    first.stop()
    chat.ask(f"sim:tokens,n=5 {word}")
    chat.says(re.compile(r"^The gateway cannot be reached, reconnecting in [0-9]+ s…$"))
    start_gateway(port=urlsplit(first.url).port)

    assert chat.completes() == expected_text("sim:tokens,n=5")
    assert simulator.stats(word)["started"] == 1


def test_a_gateway_that_comes_back_without_the_run_is_told_from_a_lost_connection(
    visitor: Visitor, start_gateway: Callable[..., Gateway]
) -> None:
    visitor.allow(NETWORK)
    first = start_gateway()
    chat = visitor.chat(first.url)
    chat.ask("sim:stall,after=3")
    expect(chat.answer).to_have_text("tok0 tok1 tok2 ")
    first.stop()
    wait_until(lambda: any(LOST.fullmatch(said) for said in chat.said), "it says so", chat.page)
    expect(chat.stop).to_be_visible()
    start_gateway(port=urlsplit(first.url).port)

    chat.says("The gateway no longer has this answer, so the rest of it is lost.")
    assert chat.text == "tok0 tok1 tok2 ", "what came stays"
    expect(chat.again).to_be_visible()


def test_a_gateway_that_is_killed_before_the_first_token_is_replaced_unseen(
    visitor: Visitor, start_gateway: Callable[..., Gateway], tmp_path: Path
) -> None:
    visitor.allow(NETWORK)
    first = start_gateway(data_dir=tmp_path)
    chat = visitor.chat(first.url)
    chat.ask("sim:slow,first=2")
    chat.says("Waiting for the answer…")
    first.stop()
    start_gateway(data_dir=tmp_path, port=urlsplit(first.url).port)

    assert chat.completes() == expected_text("sim:slow,first=2")
    assert chat.again.count() == 0
    assert any(GONE.fullmatch(said) for said in chat.said)


def test_a_reader_who_stops_while_the_connection_is_lost_stops_the_run(
    cut_chat: ChatPage, proxy: CuttingProxy, simulator: SimulatorProcess
) -> None:
    word = marker()
    proxy.fates.append(Fate("silence", events=3))
    cut_chat.ask(f"sim:tokens,n=100000,interval=0.02 {word}")
    expect(cut_chat.answer).to_have_text("tok0 tok1 ")
    proxy.fates.append(Fate("silence", size=0))
    cut_chat.stop.click()
    proxy.release()

    cut_chat.says("Stopped.")
    wait_until(lambda: simulator.stats(word)["aborted"] == 1, "the model's call was aborted")
