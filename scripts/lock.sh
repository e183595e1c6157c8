#!/bin/sh
# Writes requirements*.lock from pyproject.toml: every version exact, every file by its hash, for all
# platforms at once, and no download address, so that any index or mirror can serve them.
# Pins that still fit are kept; `make lock ARGS=--upgrade` takes the newest of everything.
set -eu
cd "$(dirname "$0")/.."
tools=$(mktemp -d)
trap 'rm -rf "$tools"' EXIT
"${PYTHON:-python3}" -m venv "$tools"
"$tools/bin/python" -m pip install --quiet --disable-pip-version-check uv

# --no-config: a developer's own uv settings (a folder of local wheels, say) must not get in.
compile() {
    "$tools/bin/uv" pip compile --quiet --no-config --universal --python-version 3.11 \
        --generate-hashes --no-header --no-emit-index-url --no-emit-find-links "$@"
}
compile "$@" pyproject.toml -o requirements.lock
# Held to the first one: what is tested is what runs.
compile "$@" pyproject.toml --group dev -c requirements.lock -o requirements-dev.lock
