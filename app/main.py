"""Composition root: picks the implementations and puts them together. Nothing happens at import.

``uvicorn app.main:app`` works: the application is made when the server asks for it.
"""

import asyncio
import gc
from collections.abc import AsyncIterator, Coroutine, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, nullcontext
from importlib import import_module
from typing import TYPE_CHECKING, Any, TypedDict

from fastapi import FastAPI
from fastapi.middleware.cors import CORSMiddleware
from sse_starlette.sse import AppStatus

from app import __version__
from app.access.gate import Gate
from app.access.quotas import MemoryQuotas
from app.access.requests import RequestQuota
from app.access.sessions import Sessions
from app.access.signed_out import MemorySignedOut
from app.access.watch import Watch
from app.api import chat, conversations, problems, reference, runs, service, session
from app.api.callers import Access
from app.api.deps import Gateway
from app.api.guard import Guard, RequestId
from app.api.page import page_files, page_router
from app.configuration import Configuration, configuration_from_environment
from app.conversations.journal import Journal
from app.conversations.late import LateStore, Store
from app.events.memory import MemoryEventLog
from app.llm.foreign import abandon
from app.llm.mcp import McpServers
from app.llm.model import ChatModel
from app.llm.upstream import UpstreamReader
from app.runs.drive import Driver
from app.runs.exchange import Exchanges
from app.runs.neighbours import Alone
from app.runs.supervisor import Supervisor
from app.settings import Settings, SettingsError

if TYPE_CHECKING:
    from app.sharing import Sharing

# LangChain's import holds the interpreter for a second; the port opens first. Seconds.
LOAD_AFTER_S = 0.02
LOOK_FOR_EXIT_S = 0.5
LAST_WRITES_S = 3.0  # at exit, for conversations that are not stored yet
# New objects until the collector looks at them, and looks until it looks at more. What it looks at
# is a pause: 1,000 objects take half a millisecond, all those of 200 streams 30, with Python's own
# (700, 10, 10) often. A run that goes well makes no cycles, so there is little to find.
GC_THRESHOLD = (1_000, 5, 40)
# What other origins' pages may read of an answer's head (WHATWG Fetch 3.2.3).
EXPOSED = [
    "Location",
    "Content-Location",
    "X-Request-ID",
    "Retry-After",
    "RateLimit",
    "RateLimit-Policy",
    "WWW-Authenticate",
]


class LifespanState(TypedDict):
    gateway: Gateway


def create_app(configuration: Configuration) -> FastAPI:
    settings = configuration.settings
    files = page_files()
    app = FastAPI(
        title="SSE gateway for LLM chat",
        version=__version__,
        lifespan=_lifespan(configuration),
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,  # it would answer with an absolute address, wrong behind TLS
    )
    problems.install(app)
    for router in (
        chat.router,
        runs.router,
        conversations.router,
        session.router,
        service.router,
        page_router(files),
    ):
        app.include_router(router)
    # The last one added is the outermost.
    app.add_middleware(problems.CatchBugs)
    if settings.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.cors_origins,
            allow_credentials=settings.cors_origins != ("*",),
            allow_methods=["GET", "POST", "DELETE", "PATCH"],
            allow_headers=["*"],
            expose_headers=EXPOSED,
        )
    app.add_middleware(Guard, settings=settings, is_public=files.__contains__)
    app.add_middleware(RequestId)
    reference.complete(app, is_open=settings.is_open)
    return app


def _lifespan(configuration: Configuration) -> Any:
    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[LifespanState]:
        async with AsyncExitStack() as stack, asyncio.TaskGroup() as tasks:
            simulator_url = None
            if configuration.uses_simulator:
                simulator = import_module("app.simulator").Simulator()
                await simulator.start()
                stack.push_async_callback(simulator.stop)
                simulator_url = simulator.url
            toolbox = configuration.toolbox
            stack.push_async_callback(abandon)
            store = LateStore(lambda: _store(configuration))
            stack.push_async_callback(store.aclose)
            servers = McpServers(configuration.mcp_servers, toolbox)
            sharing = _sharing(configuration.settings)
            access = _access(configuration, sharing)
            if access.requests is not None:
                stack.push_async_callback(access.requests.aclose)
            gateway = _gateway(configuration, tasks, simulator_url, store, servers, access, sharing)
            stack.push_async_callback(gateway.model.aclose)
            background = [
                tasks.create_task(_load(gateway.model, store), name="load the libraries"),
                tasks.create_task(_drain_at_shutdown(gateway), name="drain at shutdown"),
            ]
            if configuration.mcp_servers:
                background.append(tasks.create_task(servers.run(), name="MCP servers"))
            for name, guard in _guards(access):
                background.append(tasks.create_task(guard, name=name))
            writer = tasks.create_task(gateway.journal.run(), name="write conversations")
            async with sharing.running(tasks, gateway.journal) if sharing else nullcontext():
                yield {"gateway": gateway}
                await gateway.supervisor.drain(0)
            writer.cancel()
            await asyncio.wait({writer})
            await gateway.journal.drain(LAST_WRITES_S)
            for task in background:
                task.cancel()

    return lifespan


def _gateway(
    configuration: Configuration,
    tasks: asyncio.TaskGroup,
    simulator_url: str | None,
    store: LateStore,
    servers: McpServers,
    access: Access,
    sharing: "Sharing | None",
) -> Gateway:
    settings = configuration.settings

    def build_reader() -> UpstreamReader:
        reader: UpstreamReader = import_module("app.llm.langchain").LangChainReader(
            settings, simulator_url, configuration.toolbox
        )
        return reader

    log = sharing.log if sharing else _memory_log(settings)
    model = ChatModel(
        build_reader,
        configuration.catalogue,
        configuration.toolbox,
        max_iterations=settings.max_iterations,
        max_answer_bytes=settings.max_answer_bytes,
    )
    journal = Journal(store)
    driver = Driver(
        log,
        model,
        Exchanges(store, journal, settings.history_messages),
        tasks,
        run_timeout_s=settings.run_timeout_seconds,
        max_answer_bytes=settings.max_answer_bytes,
        heartbeat_s=settings.heartbeat_seconds,
    )
    supervisor = Supervisor(
        driver,
        max_runs=settings.max_runs,
        max_readers=settings.max_readers,
        neighbours=sharing.neighbours if sharing else Alone(),
        quotas=access.quotas,
    )
    return Gateway(
        settings=settings,
        access=access,
        log=log,
        model=model,
        supervisor=supervisor,
        catalogue=configuration.catalogue,
        store=store,
        journal=journal,
        toolbox=configuration.toolbox,
        tool_servers=servers,
        store_name="Redis" if sharing else "in memory",
        store_trouble=sharing.trouble if sharing else lambda: None,
    )


def _access(configuration: Configuration, sharing: "Sharing | None") -> Access:
    settings, credentials = configuration.settings, configuration.credentials
    quotas = sharing.quotas if sharing else MemoryQuotas()
    requests = None
    if credentials is not None or settings.rate_limit is not None:
        requests = RequestQuota(settings.redis_url, sharing.prefix if sharing else "")
    if credentials is None:
        gate = Gate(settings)
        return Access(gate, Watch(gate.still_accepts), quotas, requests)
    keys, tokens = credentials.keys, credentials.tokens
    signed_out = sharing.signed_out if sharing else MemorySignedOut()
    sessions = Sessions(credentials.session_secret, signed_out, keys=keys, tokens=tokens)
    gate = Gate(settings, keys=keys, tokens=tokens, sessions=sessions)
    return Access(gate, Watch(gate.still_accepts), quotas, requests, sessions, keys, tokens)


def _guards(access: Access) -> Iterator[tuple[str, Coroutine[Any, Any, None]]]:
    """What runs as long as the gateway does, where callers come with credentials. By name."""
    if not access.gate.is_open:
        yield "watch callers", access.watch.run()
    if access.keys is not None:
        yield "look at the keys file", access.keys.run()
    if access.tokens is not None:
        yield "fetch the keys of tokens", access.tokens.run()


def _sharing(settings: Settings) -> "Sharing | None":
    if settings.redis_url is None:
        return None
    sharing: Sharing = import_module("app.sharing").Sharing(settings.redis_url, settings)
    return sharing


def _memory_log(settings: Settings) -> MemoryEventLog:
    return MemoryEventLog(
        memory_bytes=settings.log_memory_bytes, retention_s=settings.run_retention_seconds
    )


def _store(configuration: Configuration) -> Store:
    store: Store = import_module("app.conversations.sql").SqlStore(configuration.database_url)
    return store


async def _load(model: ChatModel, store: LateStore) -> None:
    """And then tend the store."""
    await asyncio.sleep(LOAD_AFTER_S)
    gc.disable()  # an import makes little but what stays: looking through it takes a fifth of it
    try:
        await model.load()
        await store.load()
        gc.freeze()  # nor need the collector look at it ever again
        gc.set_threshold(*GC_THRESHOLD)
    finally:
        gc.enable()
    await store.run()


async def _drain_at_shutdown(gateway: Gateway) -> None:
    """A bare uvicorn goes down: end the runs, and with them the streams, which it would wait for.
    sse-starlette notes uvicorn's signal. ``app.server`` drains by itself."""
    while not AppStatus.should_exit:  # noqa: ASYNC110  # a flag is all there is
        await asyncio.sleep(LOOK_FOR_EXIT_S)
    await gateway.supervisor.drain(0)


def __getattr__(name: str) -> FastAPI:
    if name != "app":
        raise AttributeError(name)
    try:
        return create_app(configuration_from_environment())
    except SettingsError as error:
        raise SystemExit(f"gateway: {error}") from None
