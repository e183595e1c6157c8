"""``python -m app chat`` in a conversation, and with a model that uses tools."""

import json
import os
import pty
import tty
import uuid

import httpx
import pytest

from tests.live.chat import Chat, read_terminal
from tests.live.servers import PLAIN, Gateway
from tests.live.stand_ins import DONE, FINAL, START, STREAM, TOOLLESS, Canned, frames, token

CALCULATE = 'sim:tool,name=calculate,args={"expression":"6*7"},preamble=1'
SAYS = "The tool says: 42"
PREAMBLE = "Let me look that up. "
TOOLS = TOOLLESS.replace("[]", '["clock"]')
TAKEN_BACK = (START, token("Let me "), token("see."), ("retract", {"text": "Let me see."}))
ANSWER = (token("one "), token("two"), FINAL, DONE)
NOTE = "note: what came last is not part of the answer\n"


def on_terminal(question: str, url: str) -> tuple[str, str]:
    """What a terminal shows of stdout, and what stderr says."""
    master, slave = pty.openpty()
    tty.setraw(slave)
    with Chat(question, url, stdout=slave) as chat:
        os.close(slave)
        shown = b""
        while data := read_terminal(master):
            shown += data
        assert chat.wait() == 0
    os.close(master)
    return shown.decode(), chat.words


def test_a_second_question_goes_on_with_the_conversation_that_was_told(equipped: Gateway) -> None:
    with Chat("sim:echo first", equipped.url) as first:
        assert first.wait() == 0
    with Chat("sim:history", equipped.url, conversation=first.conversation) as second:
        assert second.wait() == 0

    assert second.conversation == first.conversation
    assert "sim:echo first" in second.out.decode()


def test_a_conversation_that_is_not_there_is_told_in_words(equipped: Gateway) -> None:
    with Chat("sim:echo x", equipped.url, conversation="-gone") as chat:
        assert chat.wait() == 2
    assert (bytes(chat.out), chat.words) == (
        b"",
        "error: the gateway has no conversation -gone, or no longer\n",
    )


def test_a_question_that_is_repeated_stands_in_its_conversation_once(equipped: Gateway) -> None:
    with Chat(f"sim:status,code=503,times=4,n=3,key={uuid.uuid4().hex}", equipped.url) as chat:
        assert chat.wait() == 0
    assert chat.words.count("trying again in") == 1
    found = httpx.get(f"{equipped.url}/conversations/{chat.conversation}", **PLAIN).json()
    told = [(each["role"], each["status"], each["active"]) for each in found["messages"]]
    assert told == [
        ("user", "completed", True),
        ("assistant", "failed", False),
        ("assistant", "completed", True),
    ]


def test_a_pipe_gets_the_answer_and_nothing_that_was_said_before_a_tool(equipped: Gateway) -> None:
    with Chat(CALCULATE, equipped.url) as chat:
        assert chat.wait() == 0
    assert (chat.out.decode(), chat.words) == (f"{SAYS}\n", "")


def test_a_terminal_shows_what_was_said_before_a_tool_as_that(equipped: Gateway) -> None:
    assert on_terminal(CALCULATE, equipped.url) == (f"{PREAMBLE}\n{SAYS}\n", NOTE)


@pytest.mark.parametrize("models", [TOOLS, '{"items": []}', '{"code": "not_found"}', "<html>"])
def test_a_pipe_is_written_at_the_end_unless_it_is_certain_that_there_are_no_tools(
    models: str,
) -> None:
    body = frames(*TAKEN_BACK, *ANSWER)
    with Canned((STREAM, body), models=models) as server, Chat("x", server.url) as chat:
        assert (chat.wait(), bytes(chat.out), chat.words) == (0, b"one two\n", "")


@pytest.mark.parametrize("listed", ["m", "default"])
def test_a_model_is_looked_up_by_name_and_one_that_is_not_listed_is_as_the_default(
    listed: str,
) -> None:
    """Streamed, so that what is taken back has been written: ``m`` has no tools, others have."""
    is_default = listed == "default"
    toolless = {"name": listed, "default": is_default, "tools": []}
    other = {"name": "other", "default": not is_default, "tools": ["clock"]}
    models = json.dumps({"items": [other, toolless]})
    body = frames(*TAKEN_BACK, *ANSWER)
    with Canned((STREAM, body), models=models) as server, Chat("x", server.url) as chat:
        assert (chat.wait(), bytes(chat.out), chat.words) == (0, b"Let me see.one two\n", NOTE)


def test_what_was_held_back_is_written_when_the_run_fails() -> None:
    error = {"code": "upstream_broken", "message": "It broke.", "retryable": True}
    ending = (("error", error), ("done", {"status": "failed"}))
    body = frames(*TAKEN_BACK, token("one "), *ending)
    with Canned((STREAM, body), models=TOOLS) as server, Chat("x", server.url) as chat:
        assert (chat.wait(), bytes(chat.out)) == (1, b"one \n")
    assert chat.words == "error: It broke. (upstream_broken)\n"


def test_what_was_held_back_is_written_when_the_rest_is_lost() -> None:
    cut = (STREAM, "retry: 1\n" + frames(*TAKEN_BACK, token("one ")))
    with Canned(cut, ("404 Not Found", ""), models=TOOLS) as server, Chat("x", server.url) as chat:
        assert (chat.wait(), bytes(chat.out)) == (2, b"one \n")


def test_a_run_whose_tools_may_have_acted_is_not_repeated_unasked() -> None:
    error = {"code": "upstream_broken", "message": "It broke.", "retryable": True}
    body = frames(START) + frames(("error", error), ("done", {"status": "failed"}), first=5)
    with Canned((STREAM, body)) as server, Chat("x", server.url) as chat:
        assert chat.wait() == 1
        assert server.connections == 1
