"""Asks the model through LangChain: ``agenerate`` of a ``ChatOpenAI`` with our callback handler.

Importing this takes a second: only ``ChatModel.load`` does, in a thread. Deliberate oddities, each
against a measured trap of LangChain (``performance.md``):

1. ``stream_chunk_timeout=None``: its ``wait_for`` around each chunk swallows cancels on 3.11.
2. Not ``astream``: leaving that one early closes nothing. ``agenerate`` is what ``ainvoke`` calls.
3. ``run_inline``: a handler that is not inline costs a gather for each token.
4. ``max_retries=0``: the SDK's own retries wait without a word; ours stand in ``model.py``.
5. No read timeout: it is for each read, so ``: ping`` comments would feed it for ever.
6. No cap on connections, because the SDK's queues silently above 1,000.
"""

import warnings
from typing import Any

import httpx2
import openai
from langchain_core.messages import HumanMessage
from pydantic import SecretStr

from app.llm.attempt import ATTEMPT, Attempt, note_head
from app.llm.callback import TokenHandler
from app.llm.failures import failure_of
from app.llm.lean import LeanChatOpenAI
from app.llm.stock import OPENAI_URL, StockChatOpenAI
from app.llm.turn import Turn, UpstreamReader
from app.settings import Settings

WRITE_TIMEOUT_S = 30.0  # for the request; a prompt is small
KEEPALIVE_CONNECTIONS = 100
KEEPALIVE_S = 30.0


class LangChainReader:
    def __init__(self, settings: Settings, base_url: str | None) -> None:
        """``base_url``: of the built-in simulator, where that is to answer."""
        # It prints pieces of the answer, where a chunk has an odd type.
        warnings.filterwarnings("ignore", "(?s).*Pydantic serializer warnings", UserWarning)
        connect_s = settings.connect_timeout_seconds
        self._client = openai.DefaultAsyncHttpxClient(
            timeout=httpx2.Timeout(connect=connect_s, read=None, write=WRITE_TIMEOUT_S, pool=None),
            limits=httpx2.Limits(
                max_connections=None,
                max_keepalive_connections=KEEPALIVE_CONNECTIONS,
                keepalive_expiry=KEEPALIVE_S,
            ),
            headers={"accept-encoding": "identity"},
            event_hooks={"response": [_note_head]},
            trust_env=base_url is None,  # a proxy has no way to our own loopback
        )
        common: dict[str, Any] = {
            "model": settings.model,
            "base_url": base_url or settings.openai_base_url or OPENAI_URL,
            # The SDK refuses an empty one.
            "api_key": SecretStr(settings.openai_api_key or "none"),
            "http_async_client": self._client,
            "timeout": self._client.timeout,  # None would override the client's
            "stream_usage": True,
            "stream_chunk_timeout": None,
            "max_retries": 0,
            "use_responses_api": False,
        }
        self._model: StockChatOpenAI
        if settings.upstream_reader == "lean":
            self._model = LeanChatOpenAI(
                **common, connect_timeout_s=connect_s, trust_env=base_url is None
            )
        else:
            self._model = StockChatOpenAI(**common, streaming=True)

    async def ask(self, turn: Turn) -> None:
        attempt = Attempt()
        ATTEMPT.set(attempt)
        handler = TokenHandler(turn, attempt)
        try:
            await self._model.agenerate(
                [[HumanMessage(turn.prompt.text)]],
                callbacks=[handler],
                model=turn.prompt.model,
                **turn.prompt.parameters,
            )
        except Exception as error:
            if handler.bug is not None:
                raise
            raise failure_of(error, head_seen=attempt.head_seen) from error

    async def aclose(self) -> None:
        if isinstance(self._model, LeanChatOpenAI):
            await self._model.aclose()
        await self._client.aclose()


async def _note_head(response: httpx2.Response) -> None:
    if response.is_success:
        note_head()


_: type[UpstreamReader] = LangChainReader
