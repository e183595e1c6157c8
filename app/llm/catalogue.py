"""The models that can be asked, by the names that callers use: those of ``GATEWAY_MODELS_FILE``,
else the one of the settings.

No LangChain here: this runs before the port opens.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from graphlib import CycleError, TopologicalSorter
from typing import Any, Literal

from app.llm.models_file import KEY_VARIABLE, Model, ModelsFile
from app.settings import SIMULATOR, Settings, SettingsError

# A runnable asks its own models with its own tools, a whole answer at once: no fallback, and none
# for it.
NOT_BESIDE_RUNNABLE = ("model", "base_url", "api_key_env", "parameters", "tools", "fallbacks")


@dataclass(frozen=True, slots=True)
class ModelEntry:
    """``parameters``: of OpenAI's chat completions, for requests that do not say them.
    ``context_window``: tokens, None if unknown. ``base_url``: None for OpenAI's, and for the
    built-in simulator. ``reasoning``: where the model shows it; ``answer``: how it writes.
    ``tools``: names of those that it may use, None for all. ``fallbacks``: names, in order.

    ``runnable`` (``package.module:object``) answers in place of a model's server.
    """

    name: str
    upstream_model: str
    base_url: str | None
    api_key: str | None = field(repr=False)
    connect_s: float
    first_token_s: float
    stall_s: float
    parameters: Mapping[str, Any] = field(default_factory=dict)
    context_window: int | None = None
    reasoning: Literal["field", "tags"] | None = None
    answer: Literal["plain", "react"] = "plain"
    tools: tuple[str, ...] | None = None
    fallbacks: tuple[str, ...] = ()
    done_is_enough: bool = False
    runnable: str | None = None
    is_simulator: bool = False

    def allows(self, tool: str) -> bool:
        return self.tools is None or tool in self.tools


class Catalogue:
    """Iterates over its entries in the file's order. Without a file, names that it does not have
    go to the default's server as they are."""

    def __init__(
        self, entries: Iterable[ModelEntry], default: ModelEntry, *, is_from_file: bool
    ) -> None:
        self._entries = {entry.name: entry for entry in entries}
        self.default = default
        self.is_from_file = is_from_file

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self._entries)

    def __iter__(self) -> Iterator[ModelEntry]:
        return iter(self._entries.values())

    def find(self, name: str) -> ModelEntry | None:
        entry = self._entries.get(name)
        if entry is None and not self.is_from_file:
            return replace(self.default, name=name, upstream_model=name)
        return entry

    def chain(self, entry: ModelEntry) -> tuple[ModelEntry, ...]:
        """The entry and its fallbacks, in the order to ask them; not the fallbacks of those."""
        return (entry, *(self._entries[name] for name in entry.fallbacks))


def load_catalogue(settings: Settings, environ: Mapping[str, str]) -> Catalogue:
    """``environ`` has the keys that the file names. Raises ``SettingsError`` with one line."""
    if settings.models_file is None:
        return _without_file(settings)
    file = ModelsFile(settings.models_file)
    _check_names(file)
    entries = [_entry(file, number, settings, environ) for number in range(len(file.models))]
    return Catalogue(entries, _default(entries, settings, environ), is_from_file=True)


def _without_file(settings: Settings) -> Catalogue:
    only = ModelEntry(
        name=settings.model,
        upstream_model=settings.model,
        base_url=settings.openai_base_url,
        api_key=settings.openai_api_key,
        connect_s=settings.connect_timeout_seconds,
        first_token_s=settings.first_token_timeout_seconds,
        stall_s=settings.stall_timeout_seconds,
        is_simulator=settings.uses_simulator,
    )
    return Catalogue([only], only, is_from_file=False)


def _default(
    entries: Sequence[ModelEntry], settings: Settings, environ: Mapping[str, str]
) -> ModelEntry:
    """``GATEWAY_MODEL``, else the first. Raises ``SettingsError`` for one that is not there."""
    if not _is_model_set(settings, environ):
        return entries[0]
    for entry in entries:
        if entry.name == settings.model:
            return entry
    names = ", ".join(entry.name for entry in entries)
    raise SettingsError(
        f"GATEWAY_MODEL={settings.model} is not in {settings.models_file}: it takes one of {names}"
    )


def _is_model_set(settings: Settings, environ: Mapping[str, str]) -> bool:
    """By somebody: without an upstream the settings say ``simulator`` by themselves."""
    if settings.uses_simulator and settings.model == SIMULATOR:
        return bool(environ.get("GATEWAY_MODEL", "").strip())
    return "model" in settings.model_fields_set


def _entry(
    file: ModelsFile, number: int, settings: Settings, environ: Mapping[str, str]
) -> ModelEntry:
    model, timeouts = file.models[number], file.models[number].timeouts
    names_server = model.base_url is not None or model.api_key_env is not None
    if model.runnable is not None:
        for key in NOT_BESIDE_RUNNABLE:
            if key in model.model_fields_set:
                raise file.refused(number, key, "means nothing beside runnable: leave it out")
    return ModelEntry(
        name=model.name,
        upstream_model=model.model or model.name,
        base_url=None if model.runnable else model.base_url or settings.openai_base_url,
        api_key=_api_key(file, number, settings, environ),
        connect_s=timeouts.connect_seconds or settings.connect_timeout_seconds,
        first_token_s=timeouts.first_token_seconds or settings.first_token_timeout_seconds,
        stall_s=timeouts.stall_seconds or settings.stall_timeout_seconds,
        parameters=model.parameters.model_dump(exclude_unset=True),
        context_window=model.context_window,
        reasoning=model.reasoning,
        answer=model.answer,
        tools=_tools(model),
        fallbacks=tuple(model.fallbacks),
        done_is_enough=model.done_is_enough,
        runnable=model.runnable,
        is_simulator=settings.uses_simulator and not (names_server or model.runnable),
    )


def _api_key(
    file: ModelsFile, number: int, settings: Settings, environ: Mapping[str, str]
) -> str | None:
    model = file.models[number]
    if model.api_key_env is None:
        # OpenAI's key is not for another server, unless the file says so.
        has_own = model.base_url is not None or model.runnable is not None
        return None if has_own else settings.openai_api_key
    key = environ.get(model.api_key_env, "").strip()
    if not re.fullmatch("[!-~]+", key):
        # Without the name: it may be the key itself, written in the wrong place.
        raise file.refused(number, "api_key_env", f"takes {KEY_VARIABLE}")
    return key


def _tools(model: Model) -> tuple[str, ...] | None:
    if model.runnable is not None:
        return ()  # its own are nobody else's to choose from
    return None if model.tools is None else tuple(model.tools)


def _check_names(file: ModelsFile) -> None:
    """Raises ``SettingsError`` for a name that two have, for fallbacks that are not there or cannot
    be any, and for circles of them."""
    numbers: dict[str, int] = {}
    for number, model in enumerate(file.models):
        if numbers.setdefault(model.name, number) != number:
            raise file.refused(number, "name", "takes a name that no other model in the file has")
    for number, model in enumerate(file.models):
        for name in model.fallbacks:
            if name not in numbers:
                told = f"takes names of models in the file, and {name} is none"
                raise file.refused(number, "fallbacks", told)
            if file.models[numbers[name]].runnable is not None:
                told = f"takes models that answer one turn, and {name} is a runnable"
                raise file.refused(number, "fallbacks", told)
    try:
        TopologicalSorter({model.name: model.fallbacks for model in file.models}).prepare()
    except CycleError as error:
        # Here a name stands before the one that falls back to it.
        circle: list[str] = error.args[1][::-1]
        raise file.refused(
            numbers[circle[0]], "fallbacks", f"takes no circle: {' -> '.join(circle)}"
        ) from None
