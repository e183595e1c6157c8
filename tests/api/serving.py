"""A scripted ASGI server: it takes one answer, and its client may leave."""

import asyncio

from starlette.types import Message, Scope, Send

from app.api.guard import RequestId
from app.api.stream import NativeStream, StreamBody


class Server:
    """Keeps what is sent, as uvicorn does: disconnects behind the response's end, or ``leave``."""

    def __init__(self) -> None:
        self.sent: list[Message] = []
        self._gone = asyncio.Event()

    def leave(self) -> None:
        self._gone.set()

    async def receive(self) -> Message:
        await self._gone.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        self.sent.append(message)
        if message["type"] == "http.response.body" and not message["more_body"]:
            self.leave()

    @property
    def body(self) -> bytes:
        return b"".join(message.get("body", b"") for message in self.sent)

    @property
    def events(self) -> list[str]:
        """Names, in order."""
        lines = self.body.decode().split("\n")
        return [line.removeprefix("event: ") for line in lines if line.startswith("event: ")]

    @property
    def has_ended(self) -> bool:
        """The body has its end; a client that left gets none."""
        return self.sent[-1].get("more_body") is False

    async def serves(self, stream: NativeStream | StreamBody, send: Send | None = None) -> None:
        if not isinstance(stream, NativeStream):
            stream = NativeStream(stream)
        scope: Scope = {"type": "http", "method": "GET", "headers": []}
        await RequestId(stream)(scope, self.receive, send or self.send)
