# What can be done in a checkout. Each target sets up what it needs; a second call goes straight to work.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-builtin-rules

ARGS ?=
TORCH := torch==2.13.0
DEB_TORCH ?= $(TORCH)
PYTHON := .venv/bin/python
BUF := .buf/node_modules/.bin/buf
BUF_PACKAGE := @bufbuild/buf@1.75.0
PYTEST := $(PYTHON) -m pytest
SIDE_BY_SIDE := --dist loadfile --numprocesses
BASELINE := proto/baseline.binpb
PROTOS := $(wildcard proto/decaf_node/v1/*.proto)
export DECAF_NODE_DEMO_ASSETS ?= $(CURDIR)/.demo
export PYTHONUNBUFFERED := 1
unexport PYTHONDONTWRITEBYTECODE # the tests start some thousand processes, and each would compile its modules anew

.PHONY: help demo test quick e2e ray check format proto baseline settings constraints bench compiled dist deb clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z0-9]+:.*## / { printf "make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: .venv/installed ## four nodes learn together, about three minutes (ARGS="--llm": a language model)
	@$(PYTHON) tools/fetch_demo.py $(filter --llm,$(ARGS)) "$$DECAF_NODE_DEMO_ASSETS"
	@.venv/bin/decaf-node demo $(ARGS)

test: .venv/installed-dev .buf/installed ## all tests but those of `make e2e` and `make ray`
	@$(PYTHON) tools/fetch_demo.py --llm "$$DECAF_NODE_DEMO_ASSETS"
	@$(PYTEST) $(SIDE_BY_SIDE) 3 -m "not e2e and not ray" --durations=20 $(ARGS)

quick: .venv/installed-dev ## the fast tests, one to two minutes
	@$(PYTEST) $(SIDE_BY_SIDE) 3 -m "not slow and not e2e and not ray" $(ARGS)

e2e: .venv/installed-dev ## real meshes of real processes
	@$(PYTHON) tools/fetch_demo.py --llm "$$DECAF_NODE_DEMO_ASSETS"
	@$(PYTEST) $(SIDE_BY_SIDE) 2 -m "e2e and not alone" --durations=20 $(ARGS)
	@$(PYTEST) -m "e2e and alone" --durations=20 $(ARGS)

ray: .venv/installed-ray ## simulations on a local Ray, which is installed for it
	@$(PYTEST) -m ray $(ARGS)

check: .venv/installed-dev .venv-proto/installed .buf/installed ## format, lint, types, import contracts, generated files
	@.venv/bin/ruff format --check --quiet . || { echo "Not formatted: run make format."; exit 1; }
	@.venv/bin/ruff check --quiet .
	@.venv/bin/mypy
	@.venv/bin/lint-imports --no-logo
	@tools/proto.sh check
	@$(BUF) lint
	@$(BUF) breaking --against $(BASELINE)
	@$(PYTHON) tools/settings_table.py --check
	@echo "All checks passed."

format: .venv/installed-dev ## format the code and mend what ruff can mend
	@.venv/bin/ruff check --quiet --fix . || true
	@.venv/bin/ruff format .

proto: .venv/installed-dev .venv-proto/installed ## generate decaf_node/v1 from proto/
	@tools/proto.sh write

baseline: .buf/installed ## at a release: the API that later ones must not break, and the daemon that they must mix with
	@python3 tools/freeze.py
	@$(BUF) build --exclude-source-info --output $(BASELINE)

settings: .venv/installed-dev ## generate docs/settings.md from decaf_node/settings.py
	@$(PYTHON) tools/settings_table.py

constraints: .venv/installed-dev ## choose the newest versions anew: constraints.txt
	@tools/constraints.sh "$(TORCH)"

bench: .venv/installed-dev ## all benchmarks, in a night (ARGS="mix wire": these), and docs/benchmarks.md
	@$(PYTHON) tools/fetch_demo.py --texts "$$DECAF_NODE_DEMO_ASSETS"
	@$(PYTHON) -m benchmarks $(ARGS)

compiled: .venv/installed-dev ## the mesh machine and the simulator compiled, for long simulations: build/compiled
	@$(PYTHON) -W ignore tools/compiled.py
	@cd build/compiled && ../../$(PYTHON) -m decaf_node.cli.main simulate --rounds 3 --seeds 2 --jobs 2 --json >/dev/null
	@echo "cd build/compiled && ../../$(PYTHON) -m decaf_node.cli.main simulate --seeds 10000 ..."

dist: .venv/installed-dev ## the wheel and the source archive: dist/
	@tools/dist.sh dist

deb: dist ## the Debian package for this machine's distribution: dist/ (DEB_TORCH=...: another torch, or "system" for none)
	@TORCH="$(DEB_TORCH)" deploy/debian/build.sh dist/*.whl build/deb dist

clean: ## take away all that make has made here
	@rm -rf .venv .venv-proto .buf .demo decaf-demo build dist *.egg-info
	@rm -rf .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
	@find decaf_node tests tools benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +

.venv/installed: pyproject.toml constraints.txt tools/setup.sh
	@tools/setup.sh .venv "torch, the largest part" "$(TORCH)"
	@tools/setup.sh .venv "decaf-node and what it needs" --editable ".[train,gguf]"
	@touch $@

.venv/installed-dev: .venv/installed
	@tools/setup.sh .venv "the tools for tests and checks" --editable ".[dev]"
	@touch $@

.venv/installed-ray: .venv/installed-dev
	@tools/setup.sh .venv "Ray" --editable ".[ray]"
	@touch $@

.venv-proto/installed: tools/proto-requirements.txt tools/setup.sh
	@tools/setup.sh .venv-proto "the protobuf compiler" --requirement tools/proto-requirements.txt
	@touch $@

.buf/installed: Makefile
	@command -v npm >/dev/null || { echo "There is no npm here: install Node.js (sudo apt install npm), and run make again." >&2; exit 1; }
	@echo "Installing buf ..." >&2
	@npm install --silent --no-audit --no-fund --no-save --ignore-scripts --prefix .buf "$(BUF_PACKAGE)"
	@touch $@
