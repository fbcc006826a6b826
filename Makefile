# Everything that a fresh machine needs is set up by the targets themselves; see README.md.
ifndef PYTHON
PYTHON := $(shell scripts/find-python)
endif
# The environment: for a second Python, choose another, as in make test PYTHON=python3.13 VENV=.venv-3.13.
VENV := .venv
export VENV
BIN := $(VENV)/bin
# Stamps of what is installed, with the version in their names: another PYTHON makes another environment.
VERSION := $(shell $(PYTHON) -c 'import sys; print("%d.%d.%d" % sys.version_info[:3])' 2>/dev/null)
RUNTIME := $(VENV)/.runtime-$(VERSION)
DEV := $(VENV)/.dev-$(VERSION)

.DEFAULT_GOAL := help
.PHONY: help install demo stack check format test test-long generate bench release

help: ## List the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 12

install: $(RUNTIME) ## Install the exporter into .venv

demo: $(RUNTIME) ## Run the exporter on a recorded day of the service
	@$(BIN)/chutes-exporter demo $(ARGS)

stack: $(RUNTIME) ## Run the demo with Prometheus and Alertmanager, from Debian's packages
	@scripts/system-packages stack
	@$(BIN)/python -m deploy.stack $(ARGS)

check: $(DEV) ## Only formatting, lint and types
	@scripts/check

format: $(DEV) ## Format the code
	@$(BIN)/ruff format
	@$(BIN)/ruff check --fix

test: $(DEV) ## Run all tests, with formatting, lint and types, or those of ARGS="tests/feeds -x"
	@scripts/test $(ARGS)

test-long: $(DEV) ## Run the longer suites, or one of them: ARGS=soak, release, newest, containers, readme, lowest or highest
	@scripts/test-long $(ARGS)

generate: $(DEV) ## Write all generated files: dashboards, deploy/, references in docs/, golden outputs
	@$(BIN)/python -m grafana
	@$(BIN)/python -m deploy.generate
	@$(BIN)/python -m tests.golden >/dev/null
	@$(BIN)/python -m tests.screens >/dev/null
	@$(BIN)/python -m tests.grafana.answers >/dev/null

bench: $(DEV) ## Measure speed and memory against their bounds, and page sizes, for docs/dev/performance.md
	@$(BIN)/python -m benchmarks.bench

release: $(DEV) ## Write the files of a release to dist/: make release TAG=v1.2.3
	@$(BIN)/python -m deploy.release "$(TAG)" $(ARGS)

$(RUNTIME): requirements.lock requirements-build.lock pyproject.toml scripts/venv
	@scripts/venv "$(PYTHON)" requirements.lock
	@touch $@

$(DEV): requirements-dev.lock $(RUNTIME)
	@scripts/venv "$(PYTHON)" requirements-dev.lock
	@touch $@
