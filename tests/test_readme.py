"""Words that can drift are executed: tables against the code, commands against what exists."""

import re
from pathlib import Path

from msgspec import structs
from pydantic import ByteSize

from app.configuration import configuration
from app.environment import NOT_BUILT, load, variable
from app.events import model
from app.main import create_app
from app.settings import Settings
from app.wire.native import payload

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
USAGE = model.Usage(1, 1, 2, estimated=False)
EXAMPLES = [
    model.Start("r", "c", "m", 10_000, "q", 1000),
    model.Token("t"),
    model.Reasoning("t"),
    model.Draft("t"),
    model.Retract("t"),
    model.ToolCall("i", "t", "{}"),
    model.ToolResult("i", "t", "c", is_error=False),
    model.Final("t", "stop", USAGE, "m"),
    model.Error("internal", "m", retryable=False, request_id="q"),
    model.Done("completed", USAGE, 0.0, frees_key=False),
]


def rows(heading: str) -> list[list[str]]:
    """The cells of the table under a heading of the README."""
    section = README.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def shown_default(value: object) -> str:
    if value in (None, ()):
        return "none"
    if isinstance(value, ByteSize):
        return f"`{value.human_readable(separator='').replace('.0', '')}`"
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


def test_the_settings_table_names_every_setting_with_its_default() -> None:
    table = {name.strip("`"): default for name, default, _ in rows("Settings")}

    assert table == {
        variable(name): shown_default(field.default)
        for name, field in Settings.model_fields.items()
    }


def test_the_example_env_file_is_read_as_it_is_once_its_comments_are_off() -> None:
    text = (ROOT / ".env.example").read_text()
    given = dict(re.findall(r"^# ?([A-Z_]+)=(.*)$", text, re.MULTILINE))

    assert load(given) == load({"GATEWAY_MODEL": "gpt-4o-mini"})
    assert not NOT_BUILT & given.keys()


def test_the_event_table_names_every_event_with_its_fields() -> None:
    table = {
        event.strip("`"): set(re.findall(r"`(\w+)`", data))
        for event, data, _ in rows("What comes out")
    }

    assert table == {event.name: set(payload(event)) for event in EXAMPLES}
    assert {type(event) for event in EXAMPLES} == set(model.Event.__subclasses__())
    assert all(structs.fields(type(event)) for event in EXAMPLES)


def test_the_endpoint_table_and_the_api_reference_name_the_same_endpoints() -> None:
    first_cells = " ".join(cells[0] for cells in rows("Endpoints"))
    table = set()
    for name in re.findall(r"`([^`]+)`", first_cells):
        method, path = name.split(" ")
        path = path.split("?")[0]
        what = "conversation_id" if path.startswith("/conversations") else "run_id"
        table.add((method.lower(), path.replace("{id}", f"{{{what}}}")))
    document = create_app(configuration({})).openapi()
    documented = {
        (method, path) for path, methods in document["paths"].items() for method in methods
    }

    assert table - {("get", "/"), ("get", "/docs")} == documented


def test_every_make_target_that_the_readme_names_exists() -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    blocks = "".join(re.findall(r"```sh\n(.*?)```", README, re.DOTALL))

    assert set(re.findall(r"\bmake ([a-z]+)", blocks)) <= targets
