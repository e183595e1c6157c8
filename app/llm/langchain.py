"""Asks models through LangChain: ``agenerate`` of a ``ChatOpenAI`` with our callback handler.

Importing this takes a second: only ``ChatModel.load`` does, in a thread. Deliberate oddities, each
against a measured trap of LangChain (``performance.md``):

1. ``stream_chunk_timeout=None``: its ``wait_for`` around each chunk swallows cancels on 3.11.
2. Not ``astream``: leaving that one early closes nothing. ``agenerate`` is what ``ainvoke`` calls.
3. ``run_inline``: a handler that is not inline costs a gather for each token.
4. ``max_retries=0``: the SDK's own retries wait without a word; ours stand in ``asking.py``.
5. No read timeout: it is for each read, so ``: ping`` comments would feed it for ever.
6. No cap on connections, because the SDK's queues silently above 1,000.
"""

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import httpx2
import openai
from langchain_core.runnables import RunnableBinding
from pydantic import SecretStr

from app.llm.attempt import ATTEMPT, Attempt, note_head
from app.llm.callback import TokenHandler
from app.llm.catalogue import ModelEntry
from app.llm.failures import failure_of
from app.llm.history import langchain_messages, room_for_prompt
from app.llm.lean import LeanChatOpenAI
from app.llm.reply import Reply
from app.llm.runnable import load_runnable, run
from app.llm.stock import OPENAI_URL, StockChatOpenAI
from app.llm.toolbox import Toolbox
from app.llm.turn import Turn
from app.llm.upstream import Begin, UpstreamReader
from app.settings import Settings

WRITE_TIMEOUT_S = 30.0  # for the request; a prompt is small
KEEPALIVE_CONNECTIONS = 100
KEEPALIVE_S = 30.0
_Server = tuple[str | None, str | None, float, bool]


class LangChainReader:
    def __init__(self, settings: Settings, simulator_url: str | None, toolbox: Toolbox) -> None:
        """``simulator_url``: of the built-in one, where an entry is answered by it."""
        # It prints pieces of the answer, where a chunk has an odd type.
        warnings.filterwarnings("ignore", "(?s).*Pydantic serializer warnings", UserWarning)
        self._settings = settings
        self._simulator_url = simulator_url
        self._toolbox = toolbox
        self._clients: dict[tuple[float, bool], openai.DefaultAsyncHttpxClient] = {}
        self._models: dict[_Server, StockChatOpenAI] = {}

    async def ask(self, turn: Turn, entry: ModelEntry) -> None:
        model = self.model(entry)
        parameters = {**entry.parameters, **turn.prompt.parameters}
        if schemas := self._toolbox.schemas(turn.tools):
            parameters |= _bound(model, schemas)
        else:
            parameters.pop("parallel_tool_calls", None)  # which OpenAI refuses without tools
        messages = langchain_messages(
            turn.prompt.messages,
            turn.steps,
            newest=self._settings.history_messages,
            room=room_for_prompt(
                entry.context_window, parameters.get("max_tokens"), parameters.get("tools", ())
            ),
        )
        attempt = Attempt()
        ATTEMPT.set(attempt)
        handler = TokenHandler(turn, attempt)
        try:
            await model.agenerate(
                [messages], callbacks=[handler], model=entry.upstream_model, **parameters
            )
        except Exception as error:
            if handler.bug is not None:
                raise
            raise failure_of(error, head_seen=attempt.head_seen) from error
        if attempt.done_seen and entry.done_is_enough and turn.finish_reason is None:
            turn.finished("stop")

    async def run(self, reply: Reply, begin: Begin) -> str:
        entry = reply.prompt.entry
        messages = langchain_messages(
            reply.prompt.messages,
            (),
            newest=self._settings.history_messages,
            room=room_for_prompt(entry.context_window, None, ()),
        )
        return await run(load_runnable(entry.runnable or ""), messages, reply, begin)

    def model(self, entry: ModelEntry) -> StockChatOpenAI:
        """One for each server, key and way to connect: what else differs goes with the request."""
        server = (entry.base_url, entry.api_key, entry.connect_s, entry.is_simulator)
        model = self._models.get(server)
        if model is None:
            model = self._models[server] = self._build(entry)
        return model

    def _build(self, entry: ModelEntry) -> StockChatOpenAI:
        lean = self._settings.upstream_reader == "lean"
        trust_env = not entry.is_simulator  # a proxy has no way to our own loopback
        client = self._client(entry.connect_s, trust_env)
        common: dict[str, Any] = {
            "model": entry.upstream_model,
            "base_url": self._simulator_url if entry.is_simulator else entry.base_url or OPENAI_URL,
            "api_key": SecretStr(entry.api_key or "none"),  # the SDK refuses an empty one
            "http_async_client": client,
            "timeout": client.timeout,  # None would override the client's
            "stream_usage": True,
            "stream_chunk_timeout": None,
            "max_retries": 0,
            "use_responses_api": False,
        }
        if lean:
            return LeanChatOpenAI(**common, connect_timeout_s=entry.connect_s, trust_env=trust_env)
        return StockChatOpenAI(**common, streaming=True)

    def _client(self, connect_s: float, trust_env: bool) -> openai.DefaultAsyncHttpxClient:
        client = self._clients.get((connect_s, trust_env))
        if client is None:
            timeout = httpx2.Timeout(connect=connect_s, read=None, write=WRITE_TIMEOUT_S, pool=None)
            client = self._clients[connect_s, trust_env] = openai.DefaultAsyncHttpxClient(
                timeout=timeout,
                limits=httpx2.Limits(
                    max_connections=None,
                    max_keepalive_connections=KEEPALIVE_CONNECTIONS,
                    keepalive_expiry=KEEPALIVE_S,
                ),
                headers={"accept-encoding": "identity"},
                event_hooks={"response": [_note_head]},
                trust_env=trust_env,
            )
        return client

    async def aclose(self) -> None:
        for model in self._models.values():
            if isinstance(model, LeanChatOpenAI):
                await model.aclose()
        for client in self._clients.values():
            await client.aclose()


def _bound(model: StockChatOpenAI, schemas: Sequence[dict[str, Any]]) -> Mapping[str, Any]:
    """What ``bind_tools`` adds to a request."""
    bound = model.bind_tools(schemas)
    if not isinstance(bound, RunnableBinding):
        raise TypeError("bind_tools binds no longer")
    return bound.kwargs


async def _note_head(response: httpx2.Response) -> None:
    if response.is_success:
        note_head()


_: type[UpstreamReader] = LangChainReader
