# make run, make test: the two commands. The others are for those who work on Tidegate.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: run demo test check format lock bench setup
.DEFAULT_GOAL := run

setup:
	@PYTHON=$(PYTHON) ./scripts/setup

run: setup
	@$(BIN)/tidegate demo

demo: setup
	@$(BIN)/tidegate demo --once

test: setup
	@./scripts/test

check: setup
	@./scripts/check

format: setup
	@$(BIN)/ruff check --quiet --fix . ; $(BIN)/ruff format --quiet .

bench: setup
	@$(BIN)/python -m bench

# The lock holds versions and hashes and no index's address, so that any mirror serves it.
lock: setup
	@$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --group dev pyproject.toml \
	  --output-file requirements.lock --no-header --no-emit-index-url
