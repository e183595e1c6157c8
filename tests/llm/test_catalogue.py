"""Which models there are, with what server, key and clocks, and which one answers by default."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from app.environment import load
from app.llm.catalogue import Catalogue, load_catalogue
from app.settings import SettingsError

OPENAI = {"OPENAI_API_KEY": "sk-openai"}
EXAMPLE = Path(__file__).parents[2] / "models.example.toml"


def loaded(environ: Mapping[str, str], file: Path | None = None) -> Catalogue:
    """As a start with that environment would."""
    if file is not None:
        environ = {**environ, "GATEWAY_MODELS_FILE": str(file)}
    return load_catalogue(load(environ), environ)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "models.toml"


def test_without_a_file_the_settings_name_the_one_model() -> None:
    catalogue = loaded({**OPENAI, "OPENAI_BASE_URL": "http://a.example/v1", "GATEWAY_MODEL": "m"})
    (entry,) = catalogue
    assert entry is catalogue.default
    assert (entry.name, entry.upstream_model) == ("m", "m")
    assert (entry.base_url, entry.api_key) == ("http://a.example/v1", "sk-openai")
    assert (entry.connect_s, entry.first_token_s, entry.stall_s) == (10, 120, 60)
    assert not entry.is_simulator


def test_without_a_file_any_other_name_goes_to_the_same_server_as_it_is() -> None:
    catalogue = loaded({**OPENAI, "GATEWAY_MODEL": "m"})
    other = catalogue.find("x/y:z")
    assert other is not None
    assert (other.name, other.upstream_model, other.api_key) == ("x/y:z", "x/y:z", "sk-openai")
    assert catalogue.find("m") is catalogue.default
    assert catalogue.names == ("m",)
    assert catalogue.chain(other) == (other,)


def test_without_a_file_or_an_upstream_the_simulator_answers() -> None:
    catalogue = loaded({})
    assert (catalogue.default.name, catalogue.default.is_simulator) == ("simulator", True)


def test_a_file_says_everything_about_a_model(file: Path) -> None:
    file.write_text(
        """
        [[models]]
        name = "a"
        model = "org/a-1"
        base_url = "https://a.example/v1"
        api_key_env = "A_KEY"
        context_window = 8192
        reasoning = "tags"
        answer = "react"
        tools = ["clock"]
        fallbacks = ["b"]
        done_is_enough = true
        [models.parameters]
        temperature = 1
        stop = ["x"]
        extra_body = { top_k = 3 }
        [models.timeouts]
        connect_seconds = 1
        first_token_seconds = 2.5
        stall_seconds = 3
        [[models]]
        name = "b"
        """
    )
    entry = loaded({"A_KEY": "secret-a", **OPENAI}, file).default
    assert (entry.name, entry.upstream_model) == ("a", "org/a-1")
    assert (entry.base_url, entry.api_key) == ("https://a.example/v1", "secret-a")
    assert (entry.connect_s, entry.first_token_s, entry.stall_s) == (1, 2.5, 3)
    assert entry.parameters == {"temperature": 1, "stop": ["x"], "extra_body": {"top_k": 3}}
    assert (entry.context_window, entry.reasoning, entry.answer) == (8192, "tags", "react")
    assert (entry.tools, entry.fallbacks, entry.done_is_enough) == (("clock",), ("b",), True)
    assert (entry.runnable, entry.is_simulator) == (None, False)


def test_what_a_file_leaves_out_comes_from_the_settings(file: Path) -> None:
    file.write_text('[[models]]\nname = "a"\n')
    environ = {
        **OPENAI,
        "OPENAI_BASE_URL": "http://o.example",
        "GATEWAY_CONNECT_TIMEOUT_SECONDS": "3",
        "GATEWAY_FIRST_TOKEN_TIMEOUT_SECONDS": "4",
        "GATEWAY_STALL_TIMEOUT_SECONDS": "5",
    }
    entry = loaded(environ, file).default
    assert (entry.upstream_model, entry.base_url, entry.api_key) == (
        "a",
        "http://o.example",
        "sk-openai",
    )
    assert (entry.connect_s, entry.first_token_s, entry.stall_s) == (3, 4, 5)
    assert (entry.parameters, entry.tools, entry.fallbacks, entry.answer) == ({}, None, (), "plain")


KEYS = [
    ("", "sk-openai"),
    ('base_url = "http://a.example"', None),
    ('base_url = "http://a.example"\napi_key_env = "OPENAI_API_KEY"', "sk-openai"),
    ('base_url = "http://a.example"\napi_key_env = "A_KEY"', "secret-a"),
    ('api_key_env = "A_KEY"', "secret-a"),
    ('runnable = "a.b:c"', None),
]


@pytest.mark.parametrize(("lines", "key"), KEYS, ids=[lines for lines, _ in KEYS])
def test_openai_s_key_goes_to_no_other_server_unless_the_file_says_so(
    file: Path, lines: str, key: str | None
) -> None:
    file.write_text(f'[[models]]\nname = "a"\n{lines}\n')
    assert loaded({**OPENAI, "A_KEY": " secret-a\n"}, file).default.api_key == key


@pytest.mark.parametrize(
    ("lines", "environ", "simulated"),
    [
        ("", {}, True),
        ('model = "sim-1"', {}, True),
        ("", OPENAI, False),
        ("", {"OPENAI_BASE_URL": "http://o.example"}, False),
        ('base_url = "http://a.example"', {}, False),
        ('api_key_env = "A_KEY"', {"A_KEY": "k"}, False),
        ('runnable = "a.b:c"', {}, False),
    ],
)
def test_the_simulator_answers_where_nobody_named_an_upstream(
    file: Path, lines: str, environ: dict[str, str], simulated: bool
) -> None:
    file.write_text(f'[[models]]\nname = "a"\n{lines}\n')
    assert loaded(environ, file).default.is_simulator is simulated


def test_no_key_shows_in_what_is_printed(file: Path) -> None:
    file.write_text('[[models]]\nname = "a"\napi_key_env = "A_KEY"\n')
    assert "secret-a" not in repr(loaded({"A_KEY": "secret-a"}, file).default)


def test_a_file_has_its_own_names_only_in_its_own_order(file: Path) -> None:
    file.write_text("".join(f'[[models]]\nname = "{name}"\n' for name in "cab"))
    catalogue = loaded(OPENAI, file)
    assert catalogue.names == tuple(entry.name for entry in catalogue) == ("c", "a", "b")
    assert catalogue.find("gpt-4o-mini") is None


@pytest.mark.parametrize(
    ("environ", "default"),
    [
        ({}, "a"),
        (OPENAI, "a"),
        ({"GATEWAY_MODEL": "b"}, "b"),
        ({**OPENAI, "GATEWAY_MODEL": "b"}, "b"),
        ({"GATEWAY_MODEL": " "}, "a"),
        ({"GATEWAY_MODEL": "simulator"}, "simulator"),
        ({**OPENAI, "GATEWAY_MODEL": "gpt-4o-mini"}, "gpt-4o-mini"),
    ],
)
def test_the_default_is_the_variable_s_else_the_first(
    file: Path, environ: dict[str, str], default: str
) -> None:
    names = ("a", "b", "simulator", "gpt-4o-mini")
    file.write_text("".join(f'[[models]]\nname = "{name}"\n' for name in names))
    assert loaded(environ, file).default.name == default


@pytest.mark.parametrize("model", ["x", "simulator"])
def test_a_default_that_the_file_does_not_have_stops_the_start(file: Path, model: str) -> None:
    file.write_text('[[models]]\nname = "a"\n[[models]]\nname = "b"\n')
    with pytest.raises(SettingsError) as caught:
        loaded({"GATEWAY_MODEL": model}, file)
    assert str(caught.value) == f"GATEWAY_MODEL={model} is not in {file}: it takes one of a, b"


def test_fallbacks_are_asked_in_order_and_theirs_are_not_followed(file: Path) -> None:
    file.write_text(
        """
        models = [
            { name = "a", fallbacks = ["c", "b"] }, { name = "b" }, { name = "d" },
            { name = "c", fallbacks = ["d"] },
        ]
        """
    )
    catalogue = loaded(OPENAI, file)
    assert [entry.name for entry in catalogue.chain(catalogue.default)] == ["a", "c", "b"]


def test_many_models_that_share_their_fallbacks_are_no_circle(file: Path) -> None:
    names = [f"m{number}" for number in range(40)]
    tables = [{"name": name, "fallbacks": names[number + 1 :]} for number, name in enumerate(names)]
    file.write_text("".join(f"[[models]]\n{_toml(table)}" for table in tables))
    assert len(loaded(OPENAI, file).default.fallbacks) == 39


def _toml(table: dict[str, Any]) -> str:
    return "".join(f"{key} = {value!r}\n" for key, value in table.items())


def test_a_runnable_has_no_server_and_no_tools_to_choose(file: Path) -> None:
    file.write_text(
        '[[models]]\nname = "agent"\nrunnable = "my.agents:graph"\nreasoning = "tags"\n'
    )
    agent = loaded({**OPENAI, "OPENAI_BASE_URL": "http://o.example"}, file).default
    assert (agent.runnable, agent.base_url, agent.api_key) == ("my.agents:graph", None, None)
    assert (agent.tools, agent.reasoning, agent.first_token_s) == ((), "tags", 120)


def test_the_example_loads_and_shows_what_a_file_is_for() -> None:
    catalogue = loaded({"OPENAI_API_KEY": "sk-made-up"}, EXAMPLE)
    fast, careful, local = catalogue
    assert catalogue.default is fast
    assert catalogue.chain(careful) == (careful, fast, local)
    assert (fast.api_key, local.api_key) == ("sk-made-up", None)
    assert (local.reasoning, local.tools) == ("tags", ())
    assert local.parameters["extra_body"] == {"top_k": 20}
