"""Bytes through with aiohttp on both sides: ``pass_aiohttp.py PORT``."""

import os
import sys
from collections.abc import AsyncIterator

import aiohttp
import uvloop
from aiohttp import web

CLIENT = web.AppKey("client", aiohttp.ClientSession)
JSON = {"content-type": "application/json"}


async def chat(request: web.Request) -> web.StreamResponse:
    url = os.environ["OPENAI_BASE_URL"] + "/chat/completions"
    body = await request.read()
    async with request.app[CLIENT].post(url, data=body, headers=JSON) as upstream:
        response = web.StreamResponse(
            status=upstream.status, headers={"content-type": upstream.headers["content-type"]}
        )
        await response.prepare(request)
        async for part in upstream.content.iter_any():
            await response.write(part)
        await response.write_eof()
        return response


async def client(app: web.Application) -> AsyncIterator[None]:
    connector = aiohttp.TCPConnector(limit=0)
    timeout = aiohttp.ClientTimeout(total=None)
    async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:
        app[CLIENT] = session
        yield


if __name__ == "__main__":
    app = web.Application()
    app.cleanup_ctx.append(client)
    app.router.add_post("/v1/chat/completions", chat)
    uvloop.install()
    web.run_app(
        app, host="127.0.0.1", port=int(sys.argv[1]), backlog=4096, access_log=None, print=None
    )
