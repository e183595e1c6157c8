"""One request to the gateway: where to, with which clocks, and what can go wrong, in words."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, suppress
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from urllib.parse import quote

import httpx2
import msgspec

from app.settings import is_loopback

# What a person can do about it stands here, because the gateway's own words are for programs.
_NO_KEY = "the gateway wants a key: set GATEWAY_API_KEY, or name a file that holds it: --key-file"
_BAD_KEY = "the gateway does not accept the key: it may be mistyped, expired or revoked"

CONNECT_S = 10.0
WRITE_S = 30.0  # for the request; a question is small
MODELS_S = 5.0  # for what models there are; the answer waits meanwhile
_REFUSED = (409, 429, 503)  # busy, too many, overloaded or draining: nothing was started
_PROXY_FAILED = (502, 504)  # from something in between: a run may be alive behind it


class ClientError(Exception):
    """No more of the run can be had; the text is a sentence for the person who asked.

    ``again``: the same request can help later, not before ``wait_s`` where the server said so.
    ``refused``: the server did not take the question. ``unreachable``: nothing was even sent.
    ``code``: of the contract's section 8, where the server named one; or ``run_gone``.
    """

    def __init__(
        self,
        sentence: str,
        *,
        again: bool = False,
        wait_s: float | None = None,
        refused: bool = False,
        unreachable: bool = False,
        code: str = "",
    ) -> None:
        super().__init__(sentence)
        self.again = again
        self.wait_s = wait_s
        self.refused = refused
        self.unreachable = unreachable
        self.code = code


class Model(msgspec.Struct):
    """``tools``: those that it may use; None: it has its own, if any."""

    name: str
    default: bool
    tools: list[str] | None


class Answer(msgspec.Struct):
    """What a conversation holds of a run. ``tool_calls``: what it did beside saying something."""

    id: str
    role: str
    status: str
    run_id: str
    tool_calls: list[msgspec.Raw]


class Link:
    """Requests to the gateway at ``url``, which may hold a path, shown ``key``. Redirects are not
    followed, so nobody else gets to see it. Raises ``ClientError``.

    ``bares_key``: where it goes in the clear, None if it does not.
    """

    def __init__(self, url: str, key: str | None = None) -> None:
        try:
            parsed = httpx2.URL(url if "://" in url else f"http://{url}")
        except httpx2.InvalidURL:
            parsed = httpx2.URL()
        known = parsed.scheme in ("http", "https") and parsed.host
        if not known or not 0 < (parsed.port or 1) < 65_536:
            raise ClientError(f"{url!r} is no address of a gateway, such as http://127.0.0.1:8000")
        if key and parsed.userinfo:
            # Both would be the header Authorization.
            raise ClientError("an address with a user or password and a key do not go together")
        self._auth = {"authorization": f"Bearer {key}"} if key else {}
        self._base = str(parsed.copy_with(query=None, fragment=None)).rstrip("/")
        path = parsed.path.rstrip("/")
        self._place = f"{parsed.scheme}://{parsed.netloc.decode()}{path}"  # without a password
        self._trust_env = not is_loopback(parsed.host)  # a proxy has no way to our own loopback
        in_clear = key and parsed.scheme == "http" and not is_loopback(parsed.host)
        self.bares_key = self._place if in_clear else None
        self.silence_s = 30.0  # three default heartbeats, until `start` tells the real ones

    def ask(self, path: str, body: bytes, key: str) -> AsyncGenerator[bytes, None]:
        """``POST`` what starts a run: the stream's bytes, to be closed by who iterates."""
        headers = {"content-type": "application/json", "idempotency-key": key}
        return self._stream("POST", path, headers, body)

    def resume(
        self, run_id: str, last_event_id: str, include: str = ""
    ) -> AsyncGenerator[bytes, None]:
        """``GET /runs/{id}/events``: the bytes behind the last event."""
        path = f"runs/{run_id}/events" + (f"?include={include}" if include else "")
        return self._stream("GET", path, {"last-event-id": last_event_id})

    async def delete(self, run_id: str) -> bool:
        """Stop a run; True once it has ended. The server answers within 10 s (section 6)."""
        try:
            async with self._client() as client:
                response = await client.delete(f"{self._base}/runs/{run_id}")
        except httpx2.RequestError as error:
            raise self._failed(error) from error
        if response.status_code in (200, 202, 404):
            return response.status_code != 202
        raise self._problem(response)

    async def answer_of(self, run_id: str, conversation_id: str) -> Answer | None:
        """``GET /conversations/{id}``: None if nothing of the run is stored there."""
        path = f"conversations/{quote(conversation_id, safe='')}"
        try:
            async with asyncio.timeout(self.silence_s), self._client() as client:
                response = await client.get(f"{self._base}/{path}")
            if response.status_code == 404:
                return None
            if response.status_code != 200:
                raise self._problem(response)
            answers = msgspec.json.decode(response.content, type=_Thread).messages
        except TimeoutError as error:
            raise ClientError("the connection went silent", again=True) from error
        except httpx2.RequestError as error:
            raise self._failed(error) from error
        except ValueError as error:
            raise ClientError(f"what answers at {self._place} is not a gateway") from error
        ours = [each for each in answers if (each.run_id, each.role) == (run_id, "assistant")]
        return ours[0] if ours else None

    async def models(self) -> list[Model]:
        """``GET /models``."""
        try:
            async with asyncio.timeout(MODELS_S), self._client() as client:
                response = await client.get(f"{self._base}/models")
                return msgspec.json.decode(response.content, type=_Models).items
        except (TimeoutError, httpx2.RequestError, ValueError) as error:
            raise ClientError("the gateway does not tell its models") from error

    async def _stream(
        self, method: str, path: str, headers: dict[str, str], body: bytes | None = None
    ) -> AsyncGenerator[bytes, None]:
        headers |= {"accept": "text/event-stream", "accept-encoding": "identity"}
        try:
            async with self._client() as client:
                request = client.build_request(
                    method, f"{self._base}/{path}", headers=headers, content=body
                )
                async with asyncio.timeout(self.silence_s):
                    response = await client.send(request, stream=True)
                async with aclosing(response):
                    await self._check(response)
                    chunks = response.aiter_bytes()
                    while chunk := await self._next(chunks):
                        yield chunk
        except TimeoutError as error:
            raise ClientError("the connection went silent", again=True) from error
        except httpx2.RequestError as error:
            raise self._failed(error) from error

    async def _next(self, chunks: AsyncIterator[bytes]) -> bytes:
        """Not httpx's read timeout, which cannot follow ``start.heartbeat_ms``."""
        async with asyncio.timeout(self.silence_s):
            return await anext(chunks, b"")

    def _client(self) -> httpx2.AsyncClient:
        """One for each request: after a drop nothing of the old connection is worth keeping."""
        timeout = httpx2.Timeout(connect=CONNECT_S, read=None, write=WRITE_S, pool=None)
        return httpx2.AsyncClient(
            headers=self._auth, timeout=timeout, trust_env=self._trust_env, follow_redirects=False
        )

    def unauthorized(self) -> ClientError:
        """Why nothing is told here."""
        return ClientError(_BAD_KEY if self._auth else _NO_KEY, code="unauthorized")

    def _failed(self, error: httpx2.RequestError) -> ClientError:
        if isinstance(error, httpx2.ConnectError | httpx2.ConnectTimeout):
            sentence = f"no gateway can be reached at {self._place}"
            return ClientError(sentence, again=True, unreachable=True)
        return ClientError("connection lost", again=True)

    async def _check(self, response: httpx2.Response) -> None:
        """Raises ``ClientError`` unless it is a stream."""
        status = response.status_code
        resuming = response.request.method == "GET"
        if resuming and status == 404:
            raise run_gone()
        if resuming and status == 204:
            raise ClientError("the gateway has nothing more of this answer, yet it has no end")
        kind = response.headers.get("content-type", "").partition(";")[0].strip().lower()
        if status == 200 and kind == "text/event-stream":
            return
        if status == 200 or (status == 404 and kind != "application/problem+json"):
            raise ClientError(f"what answers at {self._place} is not a gateway")
        async with asyncio.timeout(self.silence_s):
            await response.aread()
        raise self._problem(response)

    def _problem(self, response: httpx2.Response) -> ClientError:
        """Reads RFC 9457, or makes do with the status: something in between sends a page."""
        status = response.status_code
        if status == HTTPStatus.UNAUTHORIZED:
            return self.unauthorized()
        phrase = HTTPStatus(status).phrase if status in set(HTTPStatus) else ""
        sentence = f"the gateway answers with HTTP {status} {phrase}".rstrip()
        problem = _Problem()
        with suppress(ValueError):
            problem = msgspec.json.decode(response.content, type=_Problem)
        return ClientError(
            problem.detail or sentence,
            again=status in (*_REFUSED, *_PROXY_FAILED),
            wait_s=retry_after(response.headers.get("retry-after")),
            refused=status in _REFUSED,
            code=problem.code,
        )


def run_gone() -> ClientError:
    sentence = "the gateway no longer has this answer: the rest of it is lost"
    return ClientError(sentence, code="run_gone")


class _Problem(msgspec.Struct):
    detail: str = ""
    code: str = ""


class _Models(msgspec.Struct):
    items: list[Model]


class _Thread(msgspec.Struct):
    messages: list[Answer]


def retry_after(value: str | None) -> float | None:
    """Seconds: a number of them, or the time until a date (RFC 9110 section 10.2.3)."""
    if value is None:
        return None
    if value.isdecimal():
        return float(value[:9])
    try:
        at = parsedate_to_datetime(value)
    except ValueError:
        return None
    return max(0.0, (at - datetime.now(UTC)).total_seconds()) if at.tzinfo else None
