"""The language of ``GATEWAY_MODELS_FILE``, checked. Every error is one line with the file, the
line, the key and what it takes, but not the value, which may be a secret in the wrong place."""

from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError, field_validator

from app.llm.toml_file import Place, TomlFile
from app.settings import Seconds, Settings, SettingsError

# Keys of a request that the gateway says itself.
RESERVED = frozenset({"model", "messages", "stream", "stream_options", "tools", "n"})
_ENTRY = "models"
KEY_VARIABLE = "the name of an environment variable that is set, to a key in printable ASCII"

Name = Annotated[str, Field(pattern=r"^[!-~]{1,256}$")]
Stop = Annotated[str, Field(min_length=1, max_length=1000)]


class _Table(BaseModel):
    """``description`` says what a key takes."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, allow_inf_nan=False, hide_input_in_errors=True
    )


class Parameters(_Table):
    """What a request says unless its caller says otherwise. Those that callers may say have the
    limits of ``app.api.body``; the others go to the server as they are."""

    temperature: float | None = Field(None, ge=0, le=2, description="a number from 0 to 2")
    top_p: float | None = Field(None, ge=0, le=1, description="a number from 0 to 1")
    max_tokens: int | None = Field(
        None, ge=1, le=10_000_000, description="a whole number of tokens from 1"
    )
    stop: Stop | Annotated[list[Stop], Field(max_length=16)] | None = Field(
        None, description="a text, or a list of up to 16"
    )
    seed: int | None = Field(
        None, ge=-(2**63), lt=2**63, description="a whole number of at most 64 bits"
    )
    frequency_penalty: JsonValue = None
    logit_bias: JsonValue = None
    metadata: JsonValue = None
    parallel_tool_calls: JsonValue = None
    presence_penalty: JsonValue = None
    prompt_cache_key: JsonValue = None
    prompt_cache_retention: JsonValue = None
    reasoning_effort: JsonValue = None
    response_format: JsonValue = None
    safety_identifier: JsonValue = None
    service_tier: JsonValue = None
    store: JsonValue = None
    user: JsonValue = None
    verbosity: JsonValue = None
    extra_body: dict[str, JsonValue] | None = Field(
        None,
        description="a table of what else this server knows, without "
        + ", ".join(sorted(RESERVED)),
    )

    @field_validator("extra_body")
    @classmethod
    def _nothing_reserved(cls, value: dict[str, JsonValue]) -> dict[str, JsonValue]:
        if RESERVED & value.keys():
            raise ValueError("reserved")
        return value


class Timeouts(_Table):
    """Default: the settings of the same names."""

    connect_seconds: Seconds | None = Field(None, description="seconds above 0")
    first_token_seconds: Seconds | None = Field(None, description="seconds above 0")
    stall_seconds: Seconds | None = Field(None, description="seconds above 0")


class Model(_Table):
    """One ``[[models]]`` table."""

    name: Name = Field(description="the name that callers use: printable ASCII without spaces")
    model: Name | None = Field(None, description="the name that the model's server uses")
    base_url: str | None = Field(
        None, description=Settings.model_fields["openai_base_url"].description
    )
    api_key_env: str | None = Field(None, description=KEY_VARIABLE)
    parameters: Parameters = Field(Parameters.model_construct(), description="a table")
    context_window: int | None = Field(
        None, ge=1, le=10**9, description="a whole number of tokens from 1"
    )
    reasoning: Literal["field", "tags"] | None = Field(
        None, description='"field" or "tags"; leave it out for a model that does not show any'
    )
    answer: Literal["plain", "react"] = Field("plain", description='"plain" or "react"')
    tools: list[Name] | None = Field(
        None, description="a list of tools' names: [] for none, left out for all"
    )
    timeouts: Timeouts = Field(Timeouts.model_construct(), description="a table")
    fallbacks: list[Name] = Field(
        [], description="a list of names of other models in this file, each once"
    )
    done_is_enough: bool = Field(False, description="true or false")
    runnable: str | None = Field(
        None,
        pattern=r"^[\w.]+:[\w.]+$",
        description="a LangChain Runnable as package.module:object",
    )

    @field_validator("fallbacks")
    @classmethod
    def _each_once(cls, value: list[str]) -> list[str]:
        if len(set(value)) < len(value):
            raise ValueError("twice")
        return value

    @field_validator("base_url")
    @classmethod
    def _as_in_the_settings(cls, value: str) -> str:
        Settings.model_validate({"openai_base_url": value})
        return value


class _File(_Table):
    models: list[Model] = Field(min_length=1, description="one [[models]] table for each model")


_TABLES: dict[str, type[_Table]] = {
    _ENTRY: Model,
    "parameters": Parameters,
    "timeouts": Timeouts,
}


class ModelsFile:
    """Raises ``SettingsError`` for one that cannot be read or is not in the language."""

    def __init__(self, path: Path) -> None:
        self._file = TomlFile(path)
        try:
            self.models = tuple(_File.model_validate(self._file.data).models)
        except ValidationError as error:
            # A misspelt key tells more than that the right one is missing.
            first = min(error.errors(), key=lambda each: each["type"] != "extra_forbidden")
            expected = _expected(first["loc"], is_missing=first["type"] == "missing")
            raise self._file.refused(first["loc"], expected) from None

    def refused(self, number: int, key: str, expected: str) -> SettingsError:
        """The error about a key of the ``number``-th model, counted from 0."""
        return self._file.refused((_ENTRY, number, key), f"{key} {expected}")


def _expected(place: Place, *, is_missing: bool) -> str:
    """What ``place`` takes, in the words of its table."""
    table: type[_Table] = _File
    for key in (part for part in place if isinstance(part, str)):
        if table is Parameters and key in RESERVED:
            return f"{key} is not for parameters: the gateway says it itself"
        if key not in table.model_fields:
            known = ", ".join(table.model_fields)
            near = get_close_matches(key, table.model_fields, 1)
            expected = f"did you mean {near[0]}?" if near else f"takes {known}"
            return f"{key!r} is unknown here: {expected}"
        field = table.model_fields[key]
        takes = f"takes {field.description or 'a value that JSON has'}"
        if key not in _TABLES:
            break
        table = _TABLES[key]
    return f"{key} is missing: it {takes}" if is_missing else f"{key} {takes}"
