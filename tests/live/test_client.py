"""``python -m app chat`` as a person uses it, on connections as they are."""

import os
import pty
import re
import signal
import socket
import subprocess
import tty
import unicodedata
import uuid
from collections.abc import Callable, Iterator

import httpx
import pytest

from app.simulator import expected_text
from tests.live.chat import Chat, Mark, read_terminal, small_pipe, until
from tests.live.servers import Gateway, SimulatorProcess, running_gateway
from tests.live.stand_ins import DONE, FINAL, RUN_ID, START, STREAM, Canned, Proxy, frames, token

SLOW = "sim:tokens,n=20000,interval=0.02"  # longer than any test looks at it


@pytest.fixture(scope="module")
def calm(
    simulator: SimulatorProcess, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Gateway]:
    """A gateway whose clocks end nothing, so that stderr holds what a test asked for alone."""
    with running_gateway(tmp_path_factory.mktemp("calm"), simulator.url) as process:
        yield process


@pytest.fixture
def mark(simulator: SimulatorProcess) -> Mark:
    mark = Mark(uuid.uuid4().hex)
    mark.simulator = simulator
    return mark


def closed_port() -> str:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return f"http://127.0.0.1:{server.getsockname()[1]}"


def test_the_answer_goes_to_a_pipe_exactly_whatever_the_locale(calm: Gateway) -> None:
    with Chat("sim:awkward", calm.url, PYTHONIOENCODING="ascii") as chat:
        assert chat.wait() == 0
    assert chat.out.decode() == expected_text("sim:awkward") + "\n"


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_a_terminal_gets_no_control_characters_and_never_a_crash(
    calm: Gateway, encoding: str
) -> None:
    master, slave = pty.openpty()
    tty.setraw(slave)
    with Chat("sim:awkward", calm.url, stdout=slave, PYTHONIOENCODING=encoding) as chat:
        os.close(slave)
        shown = b""
        while data := read_terminal(master):
            shown += data
        assert chat.wait() == 0
    os.close(master)
    controls = {letter for letter in shown.decode() if unicodedata.category(letter) == "Cc"}
    assert controls <= set("\n\t")
    assert "plain line\nbreak" in shown.decode()
    if encoding == "utf-8":
        assert "escape \u241b[31m bell \u2407 del \u2421 " in shown.decode()


def test_a_connection_cut_again_and_again_loses_and_doubles_nothing(
    calm: Gateway, mark: Mark
) -> None:
    question = f"sim:awkward {mark}"
    cuts = [0, 100, 650, 1200, 900, 2100, 701]
    with Proxy(calm.url, cuts) as proxy, Chat(question, proxy.url) as chat:
        assert chat.wait() == 0
        assert proxy.connections == len(cuts) + 1
    assert chat.out.decode() == expected_text(question) + "\n"
    assert "connection lost, resuming" in chat.words
    assert mark.calls() == 1


def test_three_missed_heartbeats_are_a_lost_connection(gateway: Gateway, mark: Mark) -> None:
    question = f"sim:tokens,n=30,interval=0.05 {mark}"
    with Proxy(gateway.url, [1500], hold=True) as proxy, Chat(question, proxy.url) as c:
        assert c.wait() == 0
        assert proxy.connections >= 2
    assert c.out.decode() == expected_text(question) + "\n"
    assert "the connection went silent, resuming" in c.words
    assert mark.calls() == 1


def test_doubled_events_unknown_ones_and_a_taken_back_text_leave_the_answer_right() -> None:
    begin = (START, token("one "), ("news", {"x": 1}), token("hm"), ("retract", {"text": "hm"}))
    body = frames(*begin) + frames(*begin) + frames(token("two"), FINAL, DONE, first=6)
    with Canned((STREAM, body)) as server, Chat("x", server.url) as chat:
        assert chat.wait() == 0
    assert chat.out == b"one hmtwo\n"
    assert chat.words == "note: what came last is not part of the answer\n"


def test_what_final_says_is_shown_where_tokens_said_less() -> None:
    body = frames(START, token("one"), FINAL, DONE)
    with Canned((STREAM, body)) as server, Chat("x", server.url) as chat:
        assert (chat.wait(), bytes(chat.out), chat.words) == (0, b"one two\n", "")


def test_a_done_that_got_lost_behind_final_is_not_missed() -> None:
    body = frames(START, token("one two"), FINAL)
    with Canned((STREAM, body)) as server, Chat("x", server.url) as chat:
        assert (chat.wait(), bytes(chat.out), chat.words) == (0, b"one two\n", "")
        assert server.connections == 1


@pytest.mark.parametrize(
    ("head", "words"), [("404 Not Found", "no longer has"), ("204 No Content", "nothing more")]
)
def test_an_answer_that_is_gone_is_told_in_words(head: str, words: str) -> None:
    cut = (STREAM, "retry: 1\n" + frames(START, token("one")))
    with Canned(cut, (head, "")) as server, Chat("x", server.url) as chat:
        assert chat.wait() == 2
        assert f"last-event-id: {RUN_ID}.2" in server.requests[1]
    assert chat.out == b"one\n"
    assert words in chat.words


@pytest.mark.parametrize("status", ["429 Too Many Requests", "503 Service Unavailable"])
def test_a_refusal_is_tried_again_as_told_but_not_for_ever(status: str) -> None:
    problem = '{"code": "x", "detail": "Not\\u001b[2J now."}'
    refusal = (f"{status}\r\nretry-after: 0\r\ncontent-type: application/problem+json", problem)
    with Canned(refusal) as server, Chat("x", server.url) as chat:
        assert chat.wait() == 2
        assert 3 <= server.connections <= 10
        keys = {re.findall(r"idempotency-key: (\S+)", request)[0] for request in server.requests}
    assert len(keys) == 1
    assert "trying again" in chat.words
    assert "\x1b" not in chat.words
    assert chat.words.splitlines()[-1] == "error: Not\u241b[2J now."


def test_a_long_retry_after_is_left_to_the_person() -> None:
    refusal = ("429 Too Many Requests\r\nretry-after: 3600", "{}")
    with Canned(refusal) as server, Chat("x", server.url) as chat:
        assert chat.wait() == 2
        assert server.connections == 1
    assert "3600 s" in chat.words


def test_a_question_to_a_draining_gateway_is_answered_by_its_successor(
    calm: Gateway, start_gateway: Callable[..., Gateway]
) -> None:
    old = start_gateway(drain_seconds=60)
    with Chat(SLOW, old.url) as first, Proxy(old.url) as proxy:
        first.shows("tok0")
        old.signal(signal.SIGTERM)
        until(lambda: httpx.get(f"{old.url}/ready").status_code == 503, "the drain")
        with Chat("sim:tokens,n=3", proxy.url) as chat:
            chat.says("shutting down, trying again in")
            proxy.target = calm.url
            assert chat.wait() == 0
    assert chat.out == b"tok0 tok1 tok2 \n"


def test_a_run_that_failed_before_its_first_token_is_asked_for_again(
    calm: Gateway, mark: Mark
) -> None:
    question = f"sim:status,code=503,times=4,n=3,key={mark}"
    with Chat(question, calm.url) as chat:
        assert chat.wait() == 0
    assert chat.out == b"tok0 tok1 tok2 \n"
    assert chat.words.count("trying again in") == 1
    assert mark.calls() == 5


def test_an_answer_that_breaks_is_not_asked_for_again_and_told_in_words(
    calm: Gateway, mark: Mark
) -> None:
    with Chat(f"sim:error,after=2 {mark}", calm.url) as chat:
        assert chat.wait() == 1
    assert chat.out == b"tok0 tok1 \n"
    assert re.fullmatch(r"error: The model's server .*\. \(upstream_unavailable\)\n", chat.words)
    assert mark.calls() == 1


def test_a_gateway_killed_in_the_middle_of_an_answer_is_told_in_words(
    start_gateway: Callable[..., Gateway],
) -> None:
    gateway = start_gateway()
    with Proxy(gateway.url) as proxy, Chat(SLOW, proxy.url) as chat:
        chat.shows("tok3 ")
        proxy.close()
        gateway.stop()
        assert chat.wait() == 2
    assert chat.out.endswith(b" \n")
    assert chat.words.startswith("connection lost, resuming in")
    assert chat.words.splitlines()[-1] == f"error: no gateway can be reached at {proxy.url}"


@pytest.mark.parametrize(("question", "seen"), [(SLOW, "tok2 "), ("sim:silent", "")])
def test_ctrl_c_stops_the_run_upstream(calm: Gateway, mark: Mark, question: str, seen: str) -> None:
    with Chat(f"{question} {mark}", calm.url) as chat:
        chat.shows(seen)
        until(mark.is_asked, "the upstream call")
        chat.interrupt()
        assert chat.wait() == 130
    assert chat.words == "stopped\n"
    until(mark.is_stopped, "the abort")


def test_ctrl_c_before_the_start_finds_the_run_by_its_key(calm: Gateway, mark: Mark) -> None:
    question = f"sim:silent {mark}"
    with Proxy(calm.url, [0], hold=True) as proxy, Chat(question, proxy.url) as chat:
        until(mark.is_asked, "the upstream call")
        chat.interrupt()
        assert chat.wait() == 130
    assert chat.words == "stopped\n"
    until(mark.is_stopped, "the abort")


def test_a_second_ctrl_c_leaves_at_once(calm: Gateway) -> None:
    with Proxy(calm.url, [1 << 20, 0], hold=True) as proxy, Chat(SLOW, proxy.url) as chat:
        chat.shows("tok0")
        chat.interrupt()
        until(lambda: proxy.connections == 2, "the stop, which nobody answers")
        chat.interrupt()
        assert chat.wait(10) == 130


def test_ctrl_c_works_while_nobody_takes_our_output(calm: Gateway, mark: Mark) -> None:
    output, given, is_full = small_pipe()
    with Chat(f"{SLOW},batch=100 {mark}", calm.url, stdout=given) as chat:
        until(is_full, "a full pipe")
        chat.interrupt()
        assert chat.wait() == 130
    os.close(given)
    os.close(output)
    until(mark.is_stopped, "the abort")


def test_a_reader_of_our_output_that_has_enough_ends_the_run_quietly(
    calm: Gateway, mark: Mark
) -> None:
    output, given = os.pipe()
    with Chat(f"{SLOW} {mark}", calm.url, stdout=given) as chat:
        os.close(given)
        head = subprocess.run(["head", "-c", "4"], stdin=output, capture_output=True, timeout=30)
        os.close(output)
        assert chat.wait() == 128 + signal.SIGPIPE
    assert head.stdout == b"tok0"
    assert chat.words == ""
    until(mark.is_stopped, "the abort")


def test_a_gateway_behind_a_path_is_asked_there(calm: Gateway) -> None:
    with Proxy(calm.url, [700]) as proxy:
        proxy.prefix = b"/some/path"
        with Chat("sim:tokens,n=30", f"{proxy.url}/some/path/") as chat:
            assert chat.wait() == 0
    assert chat.out.decode() == expected_text("sim:tokens,n=30") + "\n"


def test_a_wrong_url_or_question_gives_one_clear_line(
    calm: Gateway, simulator: SimulatorProcess
) -> None:
    wrong = {
        closed_port(): "no gateway can be reached at http",
        "http://127.0.0.1:99999": "is no address of a gateway",
        "ftp://127.0.0.1": "is no address of a gateway",
        "": "is no address of a gateway",
        simulator.url: "is not a gateway",
    }
    for url, words in wrong.items():
        with Chat("x", url) as chat:
            assert chat.wait() == 2
        assert words in chat.words
        assert chat.words.count("\n") == 1
    with Chat("", calm.url) as chat:
        assert chat.wait() == 2
    assert re.fullmatch(r"error: text: .*\n", chat.words)
