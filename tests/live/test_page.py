"""The chat page in a real browser: questions, answers, stopping, failures."""

import re

import pytest
from playwright.sync_api import Dialog, Page, expect

from app.simulator import SECRET, expected_text
from tests.live.asking import marker
from tests.live.browser import (
    NETWORK,
    ChatPage,
    Visitor,
    texts,
    upstream_ends,
    wait_until,
)
from tests.live.cutting_proxy import CuttingProxy, Fate
from tests.live.servers import Gateway, SimulatorProcess

ENDLESS = "sim:tokens,n=100000,interval=0.02"


@pytest.mark.parametrize(
    "prompt",
    ["sim:awkward", "sim:tokens,n=2000", "sim:big", "sim:tokens,n=0", "sim:think"],
)
def test_the_page_shows_exactly_what_the_model_said(chat: ChatPage, prompt: str) -> None:
    chat.ask(prompt)

    assert chat.completes() == expected_text(prompt)


def test_chinese_and_emoji_come_through_in_both_directions(chat: ChatPage) -> None:
    words = "你好，世界。👨‍👩‍👧‍👦 🚀 שלום e\u0301"  # noqa: RUF001  Chinese takes full-width commas
    chat.ask(f"sim:echo {words}")

    assert chat.completes() == words
    assert texts(chat.page.locator(".question .text")) == [f"sim:echo {words}"]


def test_what_the_model_says_never_becomes_markup(chat: ChatPage) -> None:
    dialogs: list[Dialog] = []

    def note(dialog: Dialog) -> None:
        dialogs.append(dialog)
        dialog.dismiss()

    chat.page.on("dialog", note)
    evil = (
        "<script>alert(1)</script><img src=x onerror=alert(2)><svg onload=alert(3)>"
        "<iframe src='javascript:alert(4)'></iframe><a href='javascript:alert(5)'>x</a>&lt;b&gt;"
    )
    chat.ask(f"sim:echo {evil}")

    assert chat.completes() == evil
    assert chat.answer.locator("*").count() == 0
    assert chat.page.locator(".question .text *").count() == 0
    assert chat.page.locator("script").count() == 1
    assert dialogs == []


def test_the_answer_grows_while_the_model_speaks(chat: ChatPage) -> None:
    prompt = "sim:tokens,n=20,interval=0.05"
    chat.ask(prompt)

    assert chat.completes() == expected_text(prompt)
    assert chat.lengths == sorted(chat.lengths), "it never shrank"
    assert len(set(chat.lengths)) > 2, "it came in several steps"


def test_a_token_is_shown_before_the_next_one_exists(chat: ChatPage) -> None:
    chat.ask("sim:stall,after=3")

    expect(chat.answer).to_have_text("tok0 tok1 tok2 ", use_inner_text=False)
    expect(chat.stop).to_be_visible()
    chat.says("Answering…")


def test_questions_and_answers_stand_in_order_and_a_new_chat_clears_them(chat: ChatPage) -> None:
    for prompt in ("sim:echo one", "sim:echo two"):
        chat.ask(prompt)
        chat.completes()
        expect(chat.log).to_have_attribute("aria-busy", "false")

    shown = texts(chat.page.locator("#log .text"))
    assert shown == ["sim:echo one", "one", "sim:echo two", "two"]
    chat.fresh.click()
    expect(chat.log).to_be_empty()
    expect(chat.question).to_be_focused()


@pytest.mark.parametrize("how", ["button", "escape", "new chat"])
def test_stopping_ends_the_call_at_the_model(
    chat: ChatPage, simulator: SimulatorProcess, how: str
) -> None:
    word = marker()
    chat.ask(f"{ENDLESS} {word}")
    expect(chat.answer).to_contain_text("tok3 ")
    with chat.page.expect_request(lambda request: request.method == "DELETE") as deleted:
        if how == "button":
            chat.stop.click()
        elif how == "escape":
            chat.page.keyboard.press("Escape")
        else:
            chat.fresh.click()

    response = deleted.value.response()
    assert response
    assert response.status == 200
    assert response.json()["status"] == "cancelled"
    upstream_ends(simulator, word, "aborted")
    expect(chat.send).to_be_visible()
    if how != "new chat":
        chat.says("Stopped.")
        assert expected_text(ENDLESS).startswith(chat.text)
        assert texts(chat.notes) == ["Stopped."]


def test_stopping_works_before_the_first_token(chat: ChatPage, simulator: SimulatorProcess) -> None:
    word = marker()
    chat.ask(f"sim:silent {word}")
    chat.says("Waiting for the answer…")
    chat.stop.click()

    chat.says("Stopped.")
    upstream_ends(simulator, word, "aborted")
    assert chat.text == ""


@pytest.mark.parametrize("at", ["before the head", "inside the first event"])
def test_stopping_works_before_the_page_knows_its_run(
    cut_chat: ChatPage, proxy: CuttingProxy, simulator: SimulatorProcess, at: str
) -> None:
    word = marker()
    proxy.fates.append(Fate("silence", size=0 if at == "before the head" else 50))
    cut_chat.ask(f"sim:silent {word}")
    wait_until(lambda: simulator.stats(word)["open"] == 1, "the model was asked")
    cut_chat.stop.click()
    cut_chat.says("Stopping…")
    proxy.release()

    cut_chat.says("Stopped.")
    upstream_ends(simulator, word, "aborted")
    assert [each.method for each in proxy.asked("/runs/")] == ["DELETE"]


FAILURES = [
    ("sim:stall", "The model stopped in the middle of its answer."),
    ("sim:cut", "The model's answer broke off."),
    ("sim:cut,how=fin", "The model's answer broke off."),
    ("sim:eof", "The model's answer broke off."),
    ("sim:malformed", "The model's answer broke off."),
    ("sim:error", "The model could not be reached."),
    ("sim:status,code=401", "The model refuses the gateway's key."),
    ("sim:status,code=400", "The model refuses this question as it was put."),
]


@pytest.mark.parametrize(("prompt", "words"), FAILURES, ids=[row[0] for row in FAILURES])
def test_a_failure_is_told_in_words_below_what_came(
    visitor: Visitor, gateway: Gateway, prompt: str, words: str
) -> None:
    """The gateway with the short clocks."""
    chat = visitor.chat(gateway.url)
    chat.ask(prompt)
    expect(chat.again).to_be_visible()

    chat.says(re.compile(re.escape(words)))
    assert words in texts(chat.notes)[0]
    assert chat.text == expected_text(prompt)
    assert not any(part in chat.page.content() for part in SECRET.split())


def test_ask_again_asks_again(chat: ChatPage, simulator: SimulatorProcess) -> None:
    word = marker()
    chat.ask(f"sim:status,code=401,times=1,key={word},n=3")
    chat.again.click()

    assert chat.completes() == "tok0 tok1 tok2 "
    assert simulator.stats(word)["started"] == 2
    expect(chat.again).to_have_count(0)


def _posts(page: Page) -> list[str]:
    """Collects the idempotency keys of the page's questions."""
    keys: list[str] = []

    def note(request: object) -> None:
        headers = getattr(request, "headers", {})
        if getattr(request, "method", "") == "POST":
            keys.append(headers["idempotency-key"])

    page.on("request", note)
    return keys


def test_a_run_that_failed_before_any_token_is_repeated_with_the_same_key(
    cut_chat: ChatPage, simulator: SimulatorProcess
) -> None:
    """The gateway's own three attempts fail, and the first one of the second run."""
    word, keys = marker(), _posts(cut_chat.page)
    cut_chat.ask(f"sim:status,code=503,times=4,key={word},n=3")

    assert cut_chat.completes() == "tok0 tok1 tok2 "
    assert len(keys) == 2
    assert len(set(keys)) == 1
    assert simulator.stats(word)["started"] == 5
    assert cut_chat.again.count() == 0
    assert any("The model could not be reached, trying again" in said for said in cut_chat.said)


def test_after_three_failed_runs_the_page_leaves_it_to_the_reader(
    cut_chat: ChatPage, simulator: SimulatorProcess
) -> None:
    word, keys = marker(), _posts(cut_chat.page)
    cut_chat.ask(f"sim:cut,how=nohead {word}")
    expect(cut_chat.again).to_be_visible()

    cut_chat.says("The model could not be reached.")
    assert len(keys) == 3
    assert len(set(keys)) == 1
    assert simulator.stats(word)["started"] == 9


def test_an_answer_cut_at_its_length_says_so(chat: ChatPage) -> None:
    chat.ask("sim:finish,reason=length")

    assert chat.completes() == expected_text("sim:finish,reason=length")
    assert texts(chat.notes) == ["The answer was cut at its length limit."]


def test_a_refused_question_is_told_and_can_be_asked_again(
    visitor: Visitor, simulator: SimulatorProcess, page_gateway: Gateway
) -> None:
    visitor.allow(NETWORK)
    chat = visitor.chat(page_gateway.url)
    chat.page.route("**/chat", lambda route: route.fulfill(status=413, body="{}"), times=1)
    chat.ask("sim:echo after all")
    chat.again.click()

    assert chat.completes() == "after all"
