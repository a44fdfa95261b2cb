# Everything happens in .venv, made at the first use; nothing else is needed but Python 3.11 or newer.
# `make PYTHON=/path/to/python3.12 run` chooses another one.

SHELL := /bin/sh
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11 python3.14 python; do \
	command -v $$p >/dev/null 2>&1 && $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
	&& { echo $$p; break; }; done)
JOBS ?= 4
BIN := .venv/bin
SOURCES := ingest api loaders deploy tukang.py
PIP := $(BIN)/python -m pip --quiet --disable-pip-version-check

.PHONY: run setup test test-fast lint bench bench-lake bench-api bench-encodings bench-verify record simulate chaos chaos-upkeep docs picture \
	clean distclean
.DEFAULT_GOAL := run

run: .venv/installed
	@$(BIN)/tukang demo $(ARGS)

setup: .venv/developed

# Four at once, because most tests wait for servers; `make test JOBS=0` runs them one after the other.
test: .venv/developed
	$(BIN)/python -m pytest -n $(JOBS) --dist worksteal $(ARGS)

# Three: each reads all tests first, which is a quarter of the work.
test-fast: JOBS = 3
test-fast: .venv/developed
	$(BIN)/python -m pytest -n $(JOBS) --dist worksteal -m "not slow" $(ARGS)

lint: .venv/developed
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy $(SOURCES)

bench: .venv/developed
	$(BIN)/python -m bench.run $(ARGS)

bench-lake: .venv/developed
	$(BIN)/python -m bench.lake $(ARGS)

bench-encodings: .venv/developed
	$(BIN)/python -m bench.encodings

bench-verify: .venv/developed
	$(BIN)/python -m bench.verify

bench-api: .venv/developed
	$(BIN)/python -m bench.api $(ARGS)

# At a release: what its programs ask the API, for the next one's tests.
record: .venv/developed
	$(BIN)/python -m pytest tests/api/record_requests.py $(ARGS)

simulate: .venv/developed
	$(BIN)/python -m tests.simulation --jobs 2 --figures 0:$(or $(SEEDS),2000) $(ARGS)

chaos: .venv/developed
	$(BIN)/python -m tests.chaos.run --minutes $(or $(MINUTES),10) $(ARGS)
	$(MAKE) chaos-upkeep

# Upkeep alone: killed KILLS times beside a running worker.
chaos-upkeep: .venv/developed
	UPKEEP_KILLS=$(or $(KILLS),200) $(BIN)/python -m pytest --timeout 3600 tests/ingest/upkeep/test_kills.py

docs: .venv/installed
	$(BIN)/python -m docs.pages

picture: .venv/installed
	$(BIN)/python -m docs.picture

clean:
	rm -rf build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis *.egg-info
	find $(SOURCES) tests bench -name __pycache__ -type d -prune -exec rm -rf {} +

distclean: clean
	rm -rf .venv

# What follows makes the environment. The stamps are as new as pyproject.toml, so that a second `make` does nothing.

.venv/bin/pip:
	@test -n "$(PYTHON)" || { echo "Tukang needs Python 3.11 or newer, and none is on the path." >&2; exit 1; }
	@echo "Making the environment .venv with $$($(PYTHON) --version) ..."
	@$(PYTHON) -m venv .venv || { rm -rf .venv; echo "$(PYTHON) cannot make virtual environments:" \
		"install its venv module (Debian and Ubuntu: apt-get install python3-venv)." >&2; exit 1; }

.venv/installed: pyproject.toml | .venv/bin/pip
	@echo "Installing Tukang and what it needs into .venv: about 250 MB to download the first time ..."
	@$(PIP) install "pip>=25.1"
	@$(PIP) install --editable . || { echo "The installation did not finish: see the lines above." \
		"When the network was the cause, run the same command again; it goes on where it stopped." >&2; exit 1; }
	@touch $@

.venv/developed: .venv/installed
	@echo "Installing the developers' tools into .venv ..."
	@$(PIP) install --group dev
	@touch $@
