"""The import graph is part of the design, so it has a test (design.md section 2)."""

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent
APP = ROOT / "app"
# A layer may import itself and what stands before it. `simulator` stands apart.
LAYERS = [
    {"errors", "settings", "environment"},
    {"events.model"},
    {"wire"},
    {"events"},
    {"conversations", "access", "telemetry"},
    {"llm"},
    {"runs"},
    {"api"},
    {
        "configuration",
        "sharing",
        "main",
        "listening",
        "refusals",
        "connection",
        "server",
        "worker_server",
        "worker",
        "workers",
        "client",
        "__main__",
        "__init__",
    },
]
ONLY_IN = {
    "fastapi": {"api", "main", "server", "worker_server"},
    "starlette": {"api"},
    "sse_starlette": {"api", "main", "server"},
    "uvicorn": {"connection", "server", "worker_server"},
    "langchain_core": {"llm"},
    "langchain_openai": {"llm"},
    "openai": {"llm"},
    "aiohttp": {"llm", "access"},
    "httpx2": {"llm", "client"},
    "httptools": {"connection", "simulator"},
    "jwt": {"access"},
    "redis": {"events", "runs", "access"},
    "hiredis": {"events"},
    "sqlalchemy": {"conversations"},
    "alembic": {"conversations"},
    "aiosqlite": {"conversations"},
    "asyncpg": {"conversations"},
    "langchain_mcp_adapters": {"llm"},
    "mcp": {"llm"},
    "httpx": {"llm"},
}
LONGEST_FILE = 300


def name_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                yield whole if is_module(whole) else node.module


def is_module(name: str) -> bool:
    path = ROOT / name.replace(".", "/")
    return path.is_dir() or path.with_suffix(".py").exists()


def layer(module: str) -> int:
    """The place of ``app.…`` in ``LAYERS``."""
    inner = module.removeprefix("app").removeprefix(".") or "__init__"
    for names in (inner, inner.split(".")[0]):
        for place, members in enumerate(LAYERS):
            if names in members:
                return place
    raise AssertionError(f"{module} belongs to no layer")


def sources() -> list[Path]:
    return sorted(APP.rglob("*.py"))


def test_imports_point_one_way() -> None:
    for path in sources():
        module = name_of(path)
        if module.startswith("app.simulator"):
            continue
        for imported in imports(path):
            if imported.split(".")[0] == "app":
                assert layer(imported) <= layer(module), f"{module} imports {imported}"


def test_the_simulator_stands_apart() -> None:
    for path in sources():
        inside = name_of(path).startswith("app.simulator")
        for imported in imports(path):
            if imported.split(".")[0] == "app":
                assert imported.startswith("app.simulator") == inside, f"{path}: {imported}"


def test_libraries_are_imported_only_where_they_belong() -> None:
    for path in sources():
        first = name_of(path).removeprefix("app.").split(".")[0]
        for imported in imports(path):
            library = imported.split(".")[0]
            assert first in ONLY_IN.get(library, {first}), f"{path} imports {library}"


def test_no_file_is_too_long_to_read() -> None:
    files = [*sources(), *(ROOT / "tests").rglob("*.py"), *(ROOT / "frontend").glob("*.js")]
    long = [path.name for path in files if len(path.read_text().splitlines()) > LONGEST_FILE]
    assert long == []
