# Everything a developer runs. Each target first brings the virtual environment up to date.
VENV ?= .venv
ARGS ?=
JOBS ?= 2
export VENV
SHELL := /bin/bash
BIN := $(VENV)/bin
PACKAGES := consensus p2p matcher settlement contracts ops
LOCK := $(BIN)/uv pip compile --quiet --universal --generate-hashes --no-header \
	--no-emit-index-url --no-emit-find-links --python-version 3.11 $(LOCK_ARGS)

LINTS := lint-ruff lint-format lint-types lint-imports lint-purity lint-size lint-spelling

.DEFAULT_GOAL := help
.PHONY: help setup devnet hunt-kills test lint bench contracts wheel fresh lock clean $(LINTS)

help: ## show this list
	@grep -hE '^[a-z-]+:.*## ' $(firstword $(MAKEFILE_LIST)) | sed -E 's/:.*## /\t/' | expand -t 14

setup: ## make or update the virtual environment (VENV=.venv, PYTHON=python3.11)
	@ops/setup/setup.sh --quiet

devnet: setup ## run a network of five nodes on this machine (ARGS="--seconds 30 --json")
	@$(BIN)/fairlane devnet $(ARGS)

hunt-kills: setup ## kill -9 nodes of a network under load 200 times, then read all disks (ARGS="--seed 7")
	@$(BIN)/fairlane devnet --nodes 4 --rate 10 --kills 200 $(ARGS)

test: setup ## run the tests: first those in one process, then those that start real networks
	@$(BIN)/python -m pytest -q -n $(JOBS) --dist loadfile --max-worker-restart 0 -m "not e2e" $(ARGS)
	@status=0; $(BIN)/python -m pytest -q -m e2e $(ARGS) || status=$$?; \
	[ $$status -eq 5 ] || exit $$status # 5: none is marked e2e

lint: setup ## every static check; one that fails does not hide the next
	@$(MAKE) --no-print-directory --keep-going $(LINTS)

lint-ruff: setup
	@$(BIN)/ruff check .
lint-format: setup
	@$(BIN)/ruff format --check .
lint-types: setup
	@$(BIN)/mypy --strict $(PACKAGES) tests/lint
lint-imports: setup
	@$(BIN)/lint-imports --no-logo
lint-purity: setup
	@$(BIN)/python -m tests.lint.purity
lint-size: setup
	@$(BIN)/python -m tests.lint.size
lint-spelling: setup
	@$(BIN)/codespell

bench: setup ## run the benchmarks (ARGS="-k book")
	@$(BIN)/python -m pytest -q -p no:xdist --benchmark-only --benchmark-timer=time.process_time tests/bench $(ARGS)

model: setup ## check the model of the voting rules with spin (ARGS=--long for an hour of it)
	@$(BIN)/python -m tests.formal.spin $(ARGS)
	@$(if $(findstring --long,$(ARGS)),$(BIN)/python -m tests.consensus.safety_search)

fuzz: setup ## fuzz the readers of foreign bytes (ARGS="admission --runs 10_000_000 --atheris")
	@$(BIN)/python -m tests.fuzz $(ARGS)

contracts: setup ## recompile the contracts, compare with the committed ones, fuzz them (needs node)
	@node=$$(ops/setup/node.sh) && PATH="$$PATH:$$node" contracts/build.sh check

wheel: setup ## build dist/fairlane-*.whl and check what it holds
	@rm -rf build dist
	@$(BIN)/python -m pip wheel --quiet --no-deps --no-build-isolation --wheel-dir dist .
	@$(BIN)/python -m tests.lint.wheel dist/*.whl

fresh: ## repeat `make devnet` and `make test` in a bare Debian (needs root and debootstrap)
	@ops/setup/fresh.sh

lock: setup ## pin the requirements again (LOCK_ARGS=--upgrade for the newest versions)
	$(LOCK) pyproject.toml --output-file requirements/runtime.txt
	$(LOCK) requirements/dev.in --output-file requirements/dev.txt
	$(LOCK) requirements/build.in --output-file requirements/build.txt
	$(LOCK) requirements/fuzz.in --output-file requirements/fuzz.txt
	$(LOCK) requirements/node.in --output-file requirements/node.txt

clean: ## remove caches and build output (the virtual environment stays)
	rm -rf build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .benchmarks \
		.import_linter_cache *.egg-info contracts/out contracts/cache
	find $(PACKAGES) tests -name __pycache__ -type d -prune -exec rm -rf {} +
