"""A models file that cannot be used stops the start with one line: file, line, what is expected."""

import inspect
from pathlib import Path

import pytest
from openai.resources.chat.completions import AsyncCompletions

from app.environment import load
from app.llm.catalogue import Catalogue, load_catalogue
from app.llm.models_file import RESERVED, Parameters
from app.settings import SettingsError


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "models.toml"


def loaded(file: Path, environ: dict[str, str]) -> Catalogue:
    return load_catalogue(load({"GATEWAY_MODELS_FILE": str(file)}), environ)


def refusal(file: Path, environ: dict[str, str] | None = None) -> str:
    """Without the file's name."""
    with pytest.raises(SettingsError) as caught:
        loaded(file, environ or {})
    text = str(caught.value)
    assert "\n" not in text
    assert text.startswith(str(file))
    return text.removeprefix(str(file)).removeprefix(":")


HEAD = '[[models]]\nname = "a"\n'  # two lines
SECOND = f'# one\n\n{HEAD}\n[[models]]\nname = "b"\n'  # seven lines
TIMES = "takes seconds above 0"
URL = "3: base_url takes an http(s) address of an OpenAI-compatible server"
KEY = "3: api_key_env takes the name of an environment variable that is set, to a key in printable"
FALLBACKS = "fallbacks takes"
# What the file says, and how its refusal begins.
REFUSED = {
    # Not the language at all.
    "": "1: models is missing: it takes one [[models]] table for each model",
    "models = []": "1: models takes one [[models]] table",
    "\nmodels = 3": "2: models takes one [[models]] table",
    "models = [3]": "1: models takes one [[models]] table",
    '[models]\nname = "a"': "1: models takes one [[models]] table",
    '[[model]]\nname = "a"': "1: 'model' is unknown here: did you mean models?",
    f'default = "a"\n{HEAD}': "1: 'default' is unknown here: takes models",
    f"{HEAD}model": "3: not TOML: Expected '='",
    f"{HEAD}model = [": "3: not TOML: Invalid value",
    f"{HEAD}name = 3": "3: not TOML: Cannot overwrite a value",
    "models=" + "[" * 5000: "1: it takes values less deep in each other",
    f"{HEAD}tools = [\n{'[' * 5000}\n": "4: it takes values less deep in each other",
    # Keys and their values.
    "# no\n[[models]]\nmodel = 'a'": "2: name is missing: it takes the name that callers use",
    f"{SECOND}[[models]]": "8: name is missing",
    "[[models]]\nnmae = 'a'": "2: 'nmae' is unknown here: did you mean name?",
    f"{SECOND}api_key = 'sk-secret'": "8: 'api_key' is unknown here: did you mean api_key_env?",
    f"{HEAD}zzz = 1": "3: 'zzz' is unknown here: takes name, model, base_url, api_key_env, ",
    f"{HEAD}'a\\nb' = 1": "3: 'a\\\\nb' is unknown here",
    "[[models]]\nname = 3": "2: name takes the name that callers use",
    "[[models]]\nname = 'a b'": "2: name takes the name that callers use",
    "[[models]]\nname = ''": "2: name takes the name that callers use",
    f"{HEAD}model = 'sk secret'": "3: model takes the name that the model's server uses",
    f"{HEAD}context_window = '8k'": "3: context_window takes a whole number of tokens from 1",
    f"{HEAD}context_window = 8.5": "3: context_window takes",
    f"{HEAD}context_window = true": "3: context_window takes",
    f"{HEAD}context_window = 0": "3: context_window takes",
    f"{HEAD}reasoning = 'none'": '3: reasoning takes "field" or "tags"; leave it out',
    f"{HEAD}answer = 'ReAct'": '3: answer takes "plain" or "react"',
    f"{HEAD}done_is_enough = 'yes'": "3: done_is_enough takes true or false",
    f"{HEAD}tools = 'clock'": "3: tools takes a list of tools' names",
    f"{HEAD}runnable = 'package.module'": "3: runnable takes a LangChain Runnable as package.mod",
    f"{HEAD}base_url = 'api.example'": URL,
    f"{HEAD}base_url = 'ftp://api.example'": URL,
    f"{HEAD}base_url = 'http://api.example:port'": URL,
    f"{HEAD}base_url = 'http://u:sk-secret@api example'": URL,
    f"{HEAD}api_key_env = 'UNSET'": KEY,
    f"{HEAD}api_key_env = 'EMPTY'": KEY,
    f"{HEAD}api_key_env = 'ODD'": KEY,
    f"{HEAD}api_key_env = 'sk-secret'": KEY,
    # Tables within, however they are written.
    f"{HEAD}parameters = 3": "3: parameters takes a table",
    f"{HEAD}[models.parameters]\n\ntemperature = 3": "5: temperature takes a number from 0 to 2",
    f"{HEAD}[models.parameters]\ntemperature = nan": "4: temperature takes",
    f"{HEAD}[models.parameters]\ntop_p = '1'": "4: top_p takes a number from 0 to 1",
    f"{HEAD}[models.parameters]\nmax_tokens = 0": "4: max_tokens takes a whole number",
    f"{HEAD}[models.parameters]\nstop = ['a', 3]": "4: stop takes a text, or a list",
    f"{HEAD}[models.parameters]\nseed = 1.5": "4: seed takes a whole number",
    f"{HEAD}[models.parameters]\nuser = 2026-01-01": "4: user takes a value that JSON has",
    f"{HEAD}[models.parameters]\ntemprature = 1": "4: 'temprature' is unknown here: did you mean t",
    f"{HEAD}[models.parameters]\nstream = false": "4: stream is not for parameters: the gateway",
    f"{HEAD}[models.parameters]\nextra_body = {{ n = 2 }}": "4: extra_body takes a table of what",
    f"{HEAD}[models.parameters]\nextra_body.stream = false": "4: extra_body takes a table of what",
    f"{HEAD}[models.parameters.extra_body]\nx = [inf]": "4: extra_body takes a table of what",
    f"{HEAD}parameters = {{ temperature = 3 }}": "3: temperature takes",
    f"{HEAD}parameters.top_p = 1\nparameters.temperature = 3": "4: temperature takes",
    f"{HEAD}[models.timeouts]\nstall_seconds = 0": f"4: stall_seconds {TIMES}",
    f"{HEAD}[models.timeouts]\nconnect_seconds = inf": f"4: connect_seconds {TIMES}",
    f"{HEAD}[models.timeouts]\nfirst_token = 3": "4: 'first_token' is unknown here: did you mean",
    f'{HEAD}model = """\n[[models]]\nreasoning = 1"""\nreasoning = 1': "3: model takes",
    f'{HEAD}[models.parameters]\nuser = """\nseed = 1\n"""\nseed = ""': "7: seed takes",
    f"{HEAD}fallbacks = [\n  'a b',\n]": f"3: {FALLBACKS} a list of names of other models",
    f"{SECOND}fallbacks = ['a', 'a']": (
        f"8: {FALLBACKS} a list of names of other models in this file, each once"
    ),
    # One model and another.
    f"{SECOND}[[models]]\nname = 'a'": "9: name takes a name that no other model in the file has",
    f"{SECOND}fallbacks = ['c']": f"8: {FALLBACKS} names of models in the file, and c is none",
    f"{SECOND}runnable = 'c:d'\n[[models]]\nname = 'c'\nfallbacks = ['a', 'b']": (
        f"11: {FALLBACKS} models that answer one turn, and b is a runnable"
    ),
    f"{HEAD}fallbacks = ['a']": f"3: {FALLBACKS} no circle: a -> a",
}


@pytest.mark.parametrize(("text", "expected"), REFUSED.items(), ids=[text[:80] for text in REFUSED])
def test_a_mistake_is_told_with_its_line_and_what_is_expected(
    file: Path, text: str, expected: str
) -> None:
    for line_end in ("\n", "\r\n"):
        file.write_text(text, newline=line_end)
        told = refusal(file, {"EMPTY": " ", "ODD": "kéy"})
        assert told.startswith(expected)
        assert "secret" not in told


@pytest.mark.parametrize(
    ("fallbacks", "line", "circle"),
    [
        ({"a": "b", "b": "a"}, 3, "a -> b -> a"),
        ({"x": "b", "b": "c", "c": "a", "a": "b"}, 6, "b -> c -> a -> b"),
        ({"x": "", "a": "xb", "b": "xc", "c": "xb"}, 9, "b -> c -> b"),
    ],
)
def test_a_circle_of_fallbacks_is_told_with_its_names(
    file: Path, fallbacks: dict[str, str], line: int, circle: str
) -> None:
    tables = [f'[[models]]\nname = "{a}"\nfallbacks = {list(b)}\n' for a, b in fallbacks.items()]
    file.write_text("".join(tables))
    assert refusal(file) == f"{line}: fallbacks takes no circle: {circle}"


@pytest.mark.parametrize(
    "line",
    [
        "model = 'm'",
        "base_url = 'http://a.example'",
        "api_key_env = 'A_KEY'",
        "parameters = {}",
        "tools = []",
        "fallbacks = []",
    ],
)
def test_what_means_nothing_beside_a_runnable_is_refused(file: Path, line: str) -> None:
    file.write_text(f"{HEAD}runnable = 'a.b:c'\n{line}\n")
    key = line.split()[0]
    expected = f"4: {key} means nothing beside runnable: leave it out"
    assert refusal(file, {"A_KEY": "k"}) == expected


def test_a_file_that_cannot_be_read_is_told(file: Path) -> None:
    assert refusal(file) == " cannot be read: No such file or directory"
    file.mkdir()
    assert refusal(file) == " cannot be read: Is a directory"


def test_a_file_that_is_not_utf_8_is_told_with_its_line(file: Path) -> None:
    file.write_bytes(b'[[models]]\nname = "a"\n# caf\xe9\n')
    assert refusal(file) == "3: not TOML: it takes UTF-8"


def test_a_byte_order_mark_as_editors_on_windows_write_it_is_no_mistake(file: Path) -> None:
    file.write_text(HEAD, encoding="utf-8-sig")
    assert loaded(file, {}).names == ("a",)


def test_the_parameters_are_those_of_the_sdk_less_what_the_gateway_says_itself() -> None:
    known = inspect.signature(AsyncCompletions.create).parameters.keys()
    assert Parameters.model_fields.keys() | RESERVED <= known
    assert not Parameters.model_fields.keys() & RESERVED
