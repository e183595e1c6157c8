"""Reading answers: the load must see every token, and whatever is wrong, wherever bytes are cut."""

import asyncio
import re
from collections.abc import Callable

import pytest

from tests.bench.client import Client, Failed, Frames, Tally
from tests.bench.targets import DEFAULT

TOKEN = re.compile(DEFAULT["gateway"].token.encode())
BODY = (
    b'id: r.1\nevent: start\nretry: 1000\ndata: {"run_id":"r"}\n\n'
    b'id: r.2\nevent: token\ndata: {"text":"tok0 "}\n\n: hb\n'
    b'id: r.3\nevent: token\ndata: {"text":"tok1 "}\n\n'
    b'id: r.4\nevent: final\ndata: {"text":"tok0 tok1 "}\n\n'
)
CRLF_BODY = BODY.replace(b"\n", b"\r\n")
HEAD = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
END = b"0\r\n\r\n"


class Transport(asyncio.Transport):
    """Takes everything; ``on_write`` answers."""

    def __init__(self, on_write: Callable[[], None]) -> None:
        super().__init__()
        self._on_write = on_write

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self._on_write()

    def close(self) -> None:
        pass


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


async def answer(*pieces: bytes, lost: bool = False, leave_after: int = 0) -> tuple[bytes, Client]:
    """The text that a client has after these reads."""
    client = Client(TOKEN, Tally())

    def answer_it() -> None:
        for piece in pieces:
            client.data_received(piece)
        if lost:
            client.connection_lost(None)

    client.connection_made(Transport(answer_it))
    return await client.ask(b"GET / HTTP/1.1\r\n\r\n", leave_after), client


@pytest.mark.parametrize("body", [BODY, CRLF_BODY], ids=["LF", "CRLF"])
def test_frames_cut_anywhere_have_the_same_tokens(body: bytes) -> None:
    for cut in range(len(body)):
        frames = Frames(TOKEN)
        assert [*frames.feed(body[:cut]), *frames.feed(body[cut:])] == [b"tok0 ", b"tok1 "]


def test_frames_that_come_byte_by_byte_have_the_same_tokens() -> None:
    frames = Frames(TOKEN)
    tokens = [token for byte in CRLF_BODY for token in frames.feed(bytes([byte]))]
    assert tokens == [b"tok0 ", b"tok1 "]


def test_half_a_frame_is_no_token_yet() -> None:
    assert Frames(TOKEN).feed(b'event: token\ndata: {"text":"tok0 "}\n') == []


def test_the_final_text_of_a_single_token_is_no_second_token() -> None:
    assert Frames(TOKEN).feed(b'event: final\ndata: {"text":"tok0 "}\n\n') == []


@pytest.mark.anyio
async def test_an_http_answer_cut_anywhere_has_the_same_text() -> None:
    whole = HEAD + chunk(BODY[:70]) + chunk(BODY[70:]) + END
    for cut in range(len(whole)):
        text, client = await answer(whole[:cut], whole[cut:])
        assert text == b"tok0 tok1 "
        assert not client.closed


@pytest.mark.anyio
async def test_an_answer_without_its_end_has_failed() -> None:
    with pytest.raises(Failed, match="closed before the end"):
        await answer(HEAD + chunk(BODY), lost=True)


@pytest.mark.anyio
async def test_a_refusal_says_its_status_and_reason() -> None:
    head = b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 4\r\n\r\n"
    with pytest.raises(Failed, match="status 503: busy"):
        await answer(head + b"busy")


@pytest.mark.anyio
async def test_what_is_not_http_has_failed() -> None:
    with pytest.raises(Failed, match="not HTTP"):
        await answer(b"SSH-2.0-OpenSSH\r\n")


@pytest.mark.anyio
async def test_a_client_that_leaves_has_the_tokens_so_far() -> None:
    text, client = await answer(HEAD + chunk(BODY[:120]), leave_after=1)
    assert text == b"tok0 "
    assert client.closed
    assert client.left_at > 0
