"""What a model's fallbacks do before its first token, and never after it. Contract section 8."""

import socket
from collections.abc import Iterator

import pytest

from app.simulator import expected_style
from tests.live.asking import ask, marker
from tests.live.servers import Gateway, SimulatorProcess
from tests.live.several import gateway_with, messages_of, requests, run_of, told

pytestmark = pytest.mark.anyio

GOOD = "tok0 tok1 tok2 "
# Names and what the first server does for them; ``good`` is behind all.
FAILING = {
    "broken": "sim:status,code=500",
    "limited": "sim:status,code=429,retry_after=600",
    "locked": "sim:status,code=401",
    "rejecting": "sim:status,code=400",
    "headless": "sim:cut,how=nohead",
    "cut": "sim:cut,after=5",
    "broken_too": "sim:status,code=502",
    "lost": "sim:status,code=403",
    "tripping": "sim:status,code=429,retry_after=601",
}
ENTRY = '[[models]]\nname = "{}"\nmodel = "{}"\nbase_url = "{}"\nfallbacks = [{}]\n'


def closed_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SimulatorProcess]:
    """The fallback's upstream."""
    process = SimulatorProcess(tmp_path_factory.mktemp("other"))
    yield process
    process.stop()


@pytest.fixture(scope="module")
def falling(
    simulator: SimulatorProcess, other: SimulatorProcess, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Gateway]:
    nowhere = f"http://127.0.0.1:{closed_port()}/v1"
    models = "".join(
        ENTRY.format(name, script, simulator.url, '"good"') for name, script in FAILING.items()
    )
    models += ENTRY.format("refused", "any", nowhere, '"good"')
    models += ENTRY.format("twice", "any", nowhere, '"broken_too", "good"')
    models += ENTRY.format("hopeless", "sim:status,code=401", simulator.url, '"lost"')
    models += ENTRY.format("plain", "any", nowhere, '"styled"')
    models += ENTRY.format("styled", "sim:think", other.url, "")
    models += 'reasoning = "tags"\ntools = []\n'
    models += ENTRY.format("good", "sim:tokens,n=3", other.url, "")
    cwd = tmp_path_factory.mktemp("falling")
    with gateway_with(
        cwd, models, first_token_timeout_seconds=15, tools="app.llm.builtin:calculate"
    ) as gateway:
        yield gateway


@pytest.mark.parametrize(
    ("model", "attempts"),
    [
        ("refused", 4),
        ("broken", 4),
        ("headless", 4),
        ("limited", 2),
        ("locked", 2),
        ("rejecting", 2),
        ("twice", 7),
    ],
)
async def test_the_fallback_answers_for_a_model_that_fails_before_its_first_token(
    falling: Gateway, other: SimulatorProcess, model: str, attempts: int
) -> None:
    question = marker()
    answer = await ask(falling, question, model=model)

    assert answer.names == ["start", "token", "token", "token", "final", "done"]
    assert answer.text == answer.one("final")["text"] == GOOD
    assert answer.one("start")["model"] == model
    assert answer.one("final")["model"] == "good"
    run = run_of(falling, answer.run_id)
    assert (run["model"], run["answered_by"], run["attempts"]) == (model, "good", attempts)
    assert other.stats(question)["started"] == 1
    conversation_id = answer.one("start")["conversation_id"]
    _, kept = messages_of(falling, conversation_id)
    assert (kept["text"], kept["model"], kept["status"]) == (GOOD, "good", "completed")


async def test_after_its_first_token_a_model_is_never_replaced(
    falling: Gateway, simulator: SimulatorProcess, other: SimulatorProcess
) -> None:
    question = marker()
    answer = await ask(falling, question, model="cut")

    assert answer.names == ["start", *["token"] * 5, "error", "done"]
    assert answer.text == "tok0 tok1 tok2 tok3 tok4 "
    assert answer.one("error")["code"] == "upstream_broken"
    assert simulator.stats(question)["started"] == 1
    assert other.stats(question)["started"] == 0
    run = run_of(falling, answer.run_id)
    assert (run["answered_by"], run["attempts"], run["status"]) == ("cut", 1, "failed")
    _, kept = messages_of(falling, answer.one("start")["conversation_id"])
    assert (kept["text"], kept["model"], kept["status"]) == (answer.text, "cut", "failed")


async def test_where_all_fail_the_first_ones_error_is_told(falling: Gateway) -> None:
    answer = await ask(falling, marker(), model="hopeless")

    assert answer.names == ["start", "error", "done"]
    assert answer.one("error")["code"] == "upstream_auth"
    run = run_of(falling, answer.run_id)
    assert (run["answered_by"], run["attempts"]) == (None, 2)


async def test_a_model_that_failed_five_times_in_a_row_is_asked_no_more(
    falling: Gateway, simulator: SimulatorProcess
) -> None:
    answers = [await ask(falling, marker(), model="tripping") for _ in range(7)]

    assert [answer.text for answer in answers] == [GOOD] * 7
    assert simulator.stats("retry_after=601")["started"] == 5
    runs = [run_of(falling, answer.run_id) for answer in answers]
    assert [run["attempts"] for run in runs] == [2, 2, 2, 2, 2, 1, 1]
    assert {run["answered_by"] for run in runs} == {"good"}


async def test_a_fallback_is_read_in_its_own_style(falling: Gateway) -> None:
    answer = await ask(falling, marker(), model="plain", include=["reasoning"])

    expected = expected_style("sim:think")
    assert run_of(falling, answer.run_id)["answered_by"] == "styled"
    assert answer.text == answer.one("final")["text"] == expected.answer
    assert "".join(data["text"] for data in told(answer, "reasoning")) == expected.aside


async def test_a_fallback_is_offered_only_the_tools_that_it_may_use(
    falling: Gateway, other: SimulatorProcess
) -> None:
    question = marker()
    await ask(falling, question, model="plain")

    (body,) = requests(other, question)
    assert "tools" not in body
