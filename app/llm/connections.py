"""The connections to a model's server: one request, and the data of its answer's events.

aiohttp's, and so that it costs little for each request: address, headers and proxy are found out
once, because aiohttp would look for a proxy and a ``.netrc`` in a thread each time.
"""

import asyncio
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from time import perf_counter
from typing import Any

import aiohttp
import httpx2
import msgspec
import openai
from httpx2._utils import URLPattern, get_environment_proxies
from langchain_openai.chat_models.base import _handle_openai_api_error, _handle_openai_bad_request
from multidict import CIMultiDict
from yarl import URL

from app.llm.attempt import ATTEMPT, note_head
from app.llm.sse import DataSplitter

ERROR_BODY_BYTES = 64 * 1024  # of a refusal; only its code is looked at
HEADER_BYTES = 64 * 1024  # of one header field of an answer; some proxies add long ones
HEADERS = 1000  # fields
KEEPALIVE_S = 30.0
DRAIN_S = 1.0  # how long the end of a body may take to come behind [DONE]


class Answer:
    """One upstream answer under way. To be closed in any case; ``whole`` says that nothing but the
    end of its body is to come, so that its connection may serve another."""

    def __init__(
        self,
        request: httpx2.Request,
        response: aiohttp.ClientResponse,
        drains: set[asyncio.Task[None]],
    ) -> None:
        self.request = request
        self.whole = False
        self._response = response
        self._drains = drains
        self._content = response.content
        self._split = DataSplitter().feed
        self._attempt = ATTEMPT.get(None)

    async def read(self) -> list[bytes] | None:
        """The data of each event that one read of the socket completes; None at the end."""
        asked = perf_counter()
        try:
            chunk = await self._content.readany()
        except Exception:
            with stock_errors(self.request):
                raise
        if self._attempt:
            self._attempt.waited_since(asked)
        await self.give_way()
        return self._split(chunk) if chunk else None

    async def give_way(self) -> None:
        """Between events that nobody is called back for: such a callback gives way itself."""
        if self._attempt and self._attempt.is_over_its_share():
            await self._attempt.give_way()

    def end(self) -> None:
        """[DONE] came."""
        self.whole = True
        if self._attempt:
            self._attempt.done_seen = True

    def close(self) -> None:
        """Behind [DONE] the rest of the body is read in the background: nobody waits for that."""
        if not self.whole:
            self._response.close()
        elif not self._content.at_eof():  # which would have given the connection back
            task = asyncio.ensure_future(_read_to_end(self._response))
            self._drains.add(task)
            task.add_done_callback(self._drains.discard)


class Connections:
    """To one model's server, as the SDK's ``client`` would ask it."""

    def __init__(
        self, client: openai.AsyncOpenAI, url: str, *, connect_timeout_s: float, trust_env: bool
    ) -> None:
        """To be made in the loop that uses it. ``trust_env``: take the environment's proxy."""
        self._client = client
        self._url = URL(url).update_query(
            {name: str(value) for name, value in client.default_query.items()}
        )
        self._request = httpx2.Request("POST", str(self._url))
        self._headers = CIMultiDict(
            (name, value)
            for name, value in {**client.default_headers, **client.auth_headers}.items()
            if isinstance(value, str)
        )
        self._headers["content-type"] = "application/json"
        self._headers["accept-encoding"] = "identity"
        self._proxy, self._proxy_headers = (
            environment_proxy(str(self._url)) if trust_env else (None, {})
        )
        if self._url.scheme == "http":  # else the proxy gets a CONNECT, and headers of its own
            self._headers.update(self._proxy_headers)
        self._session = aiohttp.ClientSession(
            # No cap: a cap would queue without a word.
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=KEEPALIVE_S),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=connect_timeout_s),
            cookie_jar=aiohttp.DummyCookieJar(),
            max_line_size=HEADER_BYTES,
            max_field_size=HEADER_BYTES,
            max_headers=HEADERS,
        )
        self._drains: set[asyncio.Task[None]] = set()

    async def ask(self, payload: dict[str, Any]) -> Answer:
        """The answer, from the head of a 200 on. Raises what stock raises."""
        with stock_errors(self._request):
            response = await self._session.post(
                self._url,
                data=msgspec.json.encode(payload),
                headers=self._headers,
                proxy=self._proxy,
                proxy_headers=self._proxy_headers or None,
            )
            if response.status < 300:
                note_head()
                return Answer(self._request, response, self._drains)
            body = b""
            try:
                while piece := await response.content.read(ERROR_BODY_BYTES - len(body)):
                    body += piece
            finally:
                response.close()
            raise self._client._make_status_error_from_response(
                httpx2.Response(
                    response.status,
                    headers=list(response.headers.items()),
                    content=body,
                    request=self._request,
                )
            )

    async def aclose(self) -> None:
        for task in self._drains:
            task.cancel()
        await asyncio.gather(*self._drains, return_exceptions=True)
        await self._session.close()


@contextmanager
def stock_errors(request: httpx2.Request) -> Iterator[None]:
    """aiohttp's errors as the SDK's, and those as LangChain's."""
    try:
        try:
            yield
        except TimeoutError as error:
            raise openai.APITimeoutError(request=request) from error
        except (aiohttp.ClientError, OSError) as error:
            raise openai.APIConnectionError(request=request) from error
    except openai.BadRequestError as error:
        _handle_openai_bad_request(error)
    except openai.APIError as error:
        _handle_openai_api_error(error)


def environment_proxy(url: str) -> tuple[URL | None, Mapping[str, str]]:
    """The proxy for ``url``, and the header that it asks for: as the SDK's client reads
    ``https_proxy``, ``http_proxy``, ``all_proxy`` and ``no_proxy``."""
    asked = httpx2.URL(url)
    proxies = {URLPattern(key): proxy for key, proxy in get_environment_proxies().items()}
    address = next(
        (proxies[pattern] for pattern in sorted(proxies) if pattern.matches(asked)), None
    )
    if address is None:
        return None, {}
    proxy = URL(address)
    if proxy.user is None:
        return proxy, {}
    login = aiohttp.encode_basic_auth(proxy.user, proxy.password or "")
    return proxy.with_user(None), {"proxy-authorization": login}


async def _read_to_end(response: aiohttp.ClientResponse) -> None:
    try:
        async with asyncio.timeout(DRAIN_S):
            while await response.content.readany():
                pass
    except (TimeoutError, aiohttp.ClientError):
        pass  # then the connection serves nobody again
    finally:
        response.close()  # a body read to its end has given its connection back before
