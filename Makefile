# make run, make test: the two commands. The others are for those who work on Tidegate.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: run demo test check format lock bench prove setup
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

# The proofs of "old or new" at full count, which the test run does with a few: minutes.
prove: setup
	@TIDEGATE_PROOF_KILLS=250 $(BIN)/python -m pytest -o timeout=900 tests/integration/test_confirm.py -k at_any_moment
	@TIDEGATE_PROOF_CUTS=50 $(BIN)/python -m pytest tests/lab/test_power.py
	@TIDEGATE_PROOF_LINES=all $(BIN)/python -m pytest tests/lab/test_frayed.py
	@TIDEGATE_PROOF_STARTS=20 $(BIN)/python -m pytest tests/lab/test_starting.py
	@TIDEGATE_POLICY_SWAPS=200 $(BIN)/python -m pytest -o timeout=900 tests/lab/test_blocking.py -k flood
	@PROOF_ROUNDS=100 $(BIN)/python -m pytest tests/e2e/test_interrupted.py -k at_random
	@TIDEGATE_PROOF_CUTS=300 $(BIN)/python -m pytest tests/e2e/test_durability.py -k acknowledged_commit_is_lost_by_a_power_cut

bench: setup
	@$(BIN)/python -m bench

# The lock holds versions and hashes and no index's address, so that any mirror serves it.
lock: setup
	@$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --group dev pyproject.toml \
	  --output-file requirements.lock --no-header --no-emit-index-url
