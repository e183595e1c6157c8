# Everything here works on a fresh machine: the set-up happens when it is needed, in .venv.
# PIP_* and UV_* of the machine are respected; no download address stands here or in the lock files.
.PHONY: help run test chaos bench bench-guard check audit lock clean
.DEFAULT_GOAL := help

# More arguments for pytest (`make test ARGS="-k resume -x"`), the benchmark (`make bench
# ARGS="--only S1,S2 --targets gateway,nginx"`, ARGS=--help) or uv (`make lock ARGS=--upgrade`).
ARGS ?=
# Most tests wait: for servers, clocks, other processes. On two cores three at a time take half as
# long as one after the other. 0: in one process, as a debugger wants it.
TEST_PROCESSES ?= 3
# Programs that tests drive and PyPI does not have, each with its Debian package.
TEST_TOOLS := chromium=chromium curl=curl nginx=nginx openssl=openssl redis-server=redis-server \
	docker-compose=docker-compose '/usr/lib/postgresql/*/bin/postgres=postgresql'

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## /make \1\t/p' Makefile

run: ## sets everything up, then starts the gateway
	@scripts/setup.sh requirements.lock
	@exec .venv/bin/python -m app

test: ## sets everything up, then runs all tests
	@scripts/setup.sh requirements-dev.lock $(TEST_TOOLS)
	.venv/bin/python -m pytest -n $(TEST_PROCESSES) --dist loadfile $(ARGS)

chaos: ## five minutes in which everything breaks, with 200 readers; ARGS=--help
	@scripts/setup.sh requirements-dev.lock nginx=nginx openssl=openssl redis-server=redis-server \
		'/usr/lib/postgresql/*/bin/postgres=postgresql'
	@exec .venv/bin/python -m tests.chaos $(ARGS)

bench: ## the gateway and others side by side, 15 minutes; BENCH_PEERS=all: more others, an hour
	@scripts/setup.sh requirements-dev.lock nginx=nginx redis-server=redis-server
	@exec .venv/bin/python -m tests.bench $(ARGS)

bench-guard: ## fails if a token has become a quarter dearer than what is committed
	@scripts/setup.sh requirements-dev.lock
	.venv/bin/python -m tests.bench.guard

check: ## lint, format, types, security and layers
	@scripts/setup.sh requirements-dev.lock
	.venv/bin/python -m ruff check
	.venv/bin/python -m ruff format --check
	.venv/bin/python -m mypy
	.venv/bin/python -m bandit -q -c pyproject.toml -r app
	.venv/bin/python -m pip check --quiet
	.venv/bin/python -m pytest -q tests/test_layers.py
	@if [ -f frontend/package-lock.json ]; then echo scripts/check_frontend.sh; scripts/check_frontend.sh; fi

audit: ## known vulnerabilities of what is locked; asks PyPI, so it is no part of check
	@scripts/setup.sh requirements-dev.lock
	.venv/bin/python -m pip_audit --strict --disable-pip --require-hashes -r requirements.lock

lock: ## writes requirements*.lock anew from pyproject.toml
	scripts/lock.sh $(ARGS)

clean: ## removes what the other targets made; data/ and .env stay
	rm -rf .venv .pytest_cache .mypy_cache .ruff_cache .hypothesis .bench frontend/node_modules
	find app tests -name __pycache__ -prune -exec rm -rf {} +
