"""``GATEWAY_MODELS_FILE``: each name reaches its own server, by that server's own words."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.live.asking import ask, assert_problem, client, get, marker
from tests.live.servers import Gateway, SimulatorProcess
from tests.live.several import Tap, gateway_with, refused, requests, tapped

pytestmark = pytest.mark.anyio

KEYS = "FIRST_KEY=sk-first-secret\nSECOND_KEY=sk-second-secret\n"
MODELS = """
[[models]]
name = "first"
model = "sim:tokens,n=2"
base_url = "{first}"
api_key_env = "FIRST_KEY"
context_window = 2000
reasoning = "tags"
tools = ["calculate"]

[models.parameters]
temperature = 0.5
seed = 7
reasoning_effort = "high"
extra_body = {{ top_k = 20 }}

[[models]]
name = "second"
model = "sim:tokens,n=3"
base_url = "{second}"
api_key_env = "SECOND_KEY"
tools = []

[[models]]
name = "keyless"
model = "sim:tokens,n=4"
base_url = "{second}"
"""


@pytest.fixture(scope="module")
def taps(
    simulator: SimulatorProcess, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, Tap]]:
    """Two upstreams, each a process of its own."""
    other = SimulatorProcess(tmp_path_factory.mktemp("other"))
    try:
        with tapped(simulator) as first, tapped(other) as second:
            yield {"first": first, "second": second}
    finally:
        other.stop()


@pytest.fixture(scope="module")
def several(taps: dict[str, Tap], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    cwd = tmp_path_factory.mktemp("several")
    (cwd / ".env").write_text(KEYS)
    models = MODELS.format(first=taps["first"].url, second=taps["second"].url)
    tools = "app.llm.builtin:calculate,app.llm.builtin:current_time"
    with gateway_with(cwd, models, model="second", tools=tools) as gateway:
        yield gateway


async def test_the_models_are_listed_by_what_they_can_do_and_nothing_else(
    several: Gateway, taps: dict[str, Tap]
) -> None:
    listed = await get(several, "/models")

    first, second, keyless = listed.json()["items"]
    assert first == {
        "name": "first",
        "default": False,
        "tools": ["calculate"],
        "reasoning": "tags",
        "context_window": 2000,
    }
    assert second == {
        "name": "second",
        "default": True,
        "tools": [],
        "reasoning": None,
        "context_window": None,
    }
    assert keyless["tools"] == ["calculate", "current_time"]
    for secret in ("http", "sk-", "KEY", "sim:"):
        assert secret not in listed.text
    for tap in taps.values():
        assert str(tap.server_port) not in listed.text


@pytest.mark.parametrize(
    ("name", "at", "upstream", "key", "text"),
    [
        ("first", "first", "sim:tokens,n=2", "sk-first-secret", "tok0 tok1 "),
        ("second", "second", "sim:tokens,n=3", "sk-second-secret", "tok0 tok1 tok2 "),
        ("keyless", "second", "sim:tokens,n=4", "none", "tok0 tok1 tok2 tok3 "),
    ],
)
async def test_each_name_reaches_its_own_server_with_its_own_name_and_key(
    several: Gateway, taps: dict[str, Tap], name: str, at: str, upstream: str, key: str, text: str
) -> None:
    question = marker()
    answer = await ask(several, question, model=name)

    asked = {
        where: [one for one in tap.asked if question in str(one[1]["messages"])]
        for where, tap in taps.items()
    }
    ((heads, body),) = asked.pop(at)
    assert not any(asked.values())
    assert heads["authorization"] == f"Bearer {key}"
    assert body["model"] == upstream
    assert answer.text == answer.one("final")["text"] == text
    assert answer.one("start")["model"] == answer.one("final")["model"] == name


async def test_without_a_name_the_default_of_the_settings_answers(several: Gateway) -> None:
    answer = await ask(several, marker())

    assert answer.one("final")["model"] == "second"
    assert answer.text == "tok0 tok1 tok2 "


async def test_a_requests_parameters_win_over_those_of_the_file(
    several: Gateway, simulator: SimulatorProcess
) -> None:
    question = marker()
    await ask(several, question, model="first")
    await ask(several, question, model="first", temperature=1.5, max_tokens=9, stop=["x"])

    plain, said = requests(simulator, question)
    same = {"seed": 7, "reasoning_effort": "high", "top_k": 20}
    assert {key: plain[key] for key in same} == {key: said[key] for key in same} == same
    assert plain["temperature"] == 0.5
    assert not {"max_tokens", "max_completion_tokens", "stop"} & plain.keys()
    assert said["temperature"] == 1.5
    assert said["stop"] == ["x"]
    assert said.get("max_tokens", said.get("max_completion_tokens")) == 9


async def test_a_model_that_is_not_in_the_file_is_refused_by_its_upstream_name_too(
    several: Gateway,
) -> None:
    for name in ("third", "sim:tokens,n=2"):
        async with client(several) as http:
            response = await http.post("/chat", json={"text": "hello", "model": name})
        assert_problem(response, 422, "invalid_request")
        assert "model" in response.json()["detail"]


async def test_a_question_that_fills_the_window_is_refused(several: Gateway) -> None:
    async with client(several) as http:
        response = await http.post("/chat", json={"text": "x" * 8001, "model": "first"})
    assert_problem(response, 422, "invalid_request")


def test_the_first_words_name_the_default_and_how_many_more(
    several: Gateway, taps: dict[str, Tap]
) -> None:
    assert f"model  second at {taps['second'].url}, and 2 more\n" in several.lines
    assert "sk-" not in several.output


ONE = '[[models]]\nname = "a"\nbase_url = "http://127.0.0.1:9/v1"\n'
BAD_FILES = {
    "no TOML": (ONE + "fallbacks = [\n", 5, "TOML"),
    "a misspelt key": (ONE + 'resoning = "tags"\n', 4, "did you mean reasoning?"),
    "circular": (
        ONE + 'fallbacks = ["b"]\n' + ONE.replace('"a"', '"b"') + 'fallbacks = ["a"]\n',
        4,
        "takes no circle: a -> b -> a",
    ),
    "a fallback that is not there": (ONE + 'fallbacks = ["c"]\n', 4, "c is none"),
    "a key that is not set": (ONE + 'api_key_env = "NO_SUCH_KEY"\n', 4, "api_key_env"),
}


@pytest.mark.parametrize(("text", "line", "says"), BAD_FILES.values(), ids=BAD_FILES)
def test_an_error_in_the_file_stops_the_start_with_file_and_line(
    text: str, line: int, says: str, tmp_path: Path
) -> None:
    (tmp_path / "models.toml").write_text(text)

    told = refused(tmp_path, models_file="models.toml")

    assert f"models.toml:{line}: " in told
    assert says in told


def test_a_default_or_a_tool_that_is_not_there_stops_the_start(tmp_path: Path) -> None:
    (tmp_path / "models.toml").write_text(ONE)
    assert "GATEWAY_MODEL=b" in refused(tmp_path, models_file="models.toml", model="b")
    (tmp_path / "models.toml").write_text(ONE + 'tools = ["calculate"]\n')
    line = refused(tmp_path, models_file="models.toml")
    assert "models.toml:4: tools takes tools that" in line
    assert "calculate is none" in line
