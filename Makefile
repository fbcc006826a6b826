# Everything that a fresh machine needs is set up by the targets themselves; see README.md.
PYTHON ?= $(shell scripts/find-python)
VENV := .venv
BIN := $(VENV)/bin

.DEFAULT_GOAL := help
.PHONY: help demo test check format lock image clean

help: ## Say what there is
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 12

demo: $(VENV)/.runtime ## Run the exporter on a simulated Chutes API
	@$(BIN)/chutes-exporter demo $(ARGS)

test: $(VENV)/.dev ## Run all tests, with formatting, lint, types and coverage
	@scripts/system-packages
	@scripts/test $(ARGS)

check: $(VENV)/.dev ## Only formatting, lint and types
	@scripts/check

format: $(VENV)/.dev ## Format the code
	@$(BIN)/ruff format
	@$(BIN)/ruff check --fix

lock: $(VENV)/.dev ## Renew the lock files
	@scripts/lock

image: ## Build the container image
	docker build --tag chutes-exporter .

clean: ## Remove what the other targets made
	rm -rf $(VENV) .cache .coverage .coverage.* .hypothesis .mypy_cache .pytest_cache .ruff_cache dist

$(VENV)/.runtime: requirements.lock pyproject.toml scripts/venv
	@scripts/venv "$(PYTHON)" requirements.lock
	@touch $@

$(VENV)/.dev: requirements-dev.lock $(VENV)/.runtime
	@scripts/venv "$(PYTHON)" requirements-dev.lock
	@touch $@
