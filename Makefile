# Everything that a fresh machine needs is set up by the targets themselves; see README.md.
ifndef PYTHON
PYTHON := $(shell scripts/find-python)
endif
# The environment; `make test-python` has one of its own.
VENV := .venv
export VENV
BIN := $(VENV)/bin
# Stamps of what is installed, with the version in their names: another PYTHON makes another environment.
VERSION := $(shell $(PYTHON) -c 'import sys; print("%d.%d.%d" % sys.version_info[:3])' 2>/dev/null)
RUNTIME := $(VENV)/.runtime-$(VERSION)
DEV := $(VENV)/.dev-$(VERSION)

.DEFAULT_GOAL := help
.PHONY: help install demo stack test soak test-containers test-release test-newest test-lowest test-highest test-readme test-python check format boards pictures deploy generate bench bench-scale lock image release clean

help: ## List the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 12

install: $(RUNTIME) ## Install the exporter into .venv

demo: $(RUNTIME) ## Run the exporter on a recorded day of the service
	@$(BIN)/chutes-exporter demo $(ARGS)

stack: $(RUNTIME) ## Run the demo with Prometheus and Alertmanager, from Debian's packages
	@scripts/system-packages stack
	@$(BIN)/python -m deploy.stack $(ARGS)

test: $(DEV) ## Run all tests, with formatting, lint, types and coverage
	@scripts/system-packages
	@scripts/node-packages grafana/display/oldest
	@scripts/node-packages grafana/display/newest
	@scripts/test $(ARGS)

soak: $(DEV) ## Run the tests that take minutes: bad answers, attacks, and alerts of a day
	@scripts/test -m soak

test-containers: $(DEV) ## Build the container image and run it, the Kubernetes manifests and compose, as root
	@scripts/system-packages containers
	@scripts/test-containers $(ARGS)

test-release: $(DEV) ## Build the files of a release, and run the demo from them
	@scripts/test -m release tests/deploy $(ARGS)

test-newest: $(DEV) ## Run the integration tests with Prometheus 3 and VictoriaMetrics of Debian's next release
	@scripts/system-packages
	@scripts/node-packages grafana/display/oldest
	@scripts/node-packages grafana/display/newest
	@scripts/newest-programs
	@PATH="$(CURDIR)/.cache/newest/usr/bin:$$PATH" scripts/test --numprocesses auto --maxprocesses 4 --dist loadfile \
		-m "newest or not (soak or containers)" tests/newest tests/integration tests/prometheus tests/alertmanager \
		tests/grafana/test_answers.py tests/grafana/test_shown.py -k "not answers_as_before" $(ARGS)

test-lowest: $(DEV) ## Run the tests of the package with the lowest dependencies that pyproject.toml admits
	@scripts/system-packages
	@scripts/test-versions lowest-direct $(ARGS)

test-highest: $(DEV) ## Run the tests of the package with the newest dependencies
	@scripts/system-packages
	@scripts/test-versions highest $(ARGS)

test-readme: $(DEV) ## Run the README's commands in a new Debian with only Python, git and make, as root
	@scripts/system-packages readme
	@scripts/test-readme $(ARGS)

test-python: ## Run `make test` with another Python: make test-python PYTHON=python3.13
	@$(MAKE) --no-print-directory test VENV=.venv-$(basename $(VERSION))

check: $(DEV) ## Only formatting, lint and types
	@scripts/check

format: $(DEV) ## Format the code
	@$(BIN)/ruff format
	@$(BIN)/ruff check --fix

boards: $(DEV) ## Write the dashboards, grafana/dashboards/*.json
	@$(BIN)/python -m grafana

pictures: $(DEV) ## Draw the dashboards, grafana/pictures/*.png
	@scripts/system-packages
	@scripts/node-packages grafana/render --legacy-peer-deps
	@$(BIN)/python -m grafana.draw $(ARGS)

deploy: $(DEV) ## Generate the files in deploy/ and the references in docs/
	@$(BIN)/python -m deploy.generate

generate: boards deploy ## Write all generated files: dashboards, deploy/, references in docs/, golden outputs
	@$(BIN)/python -m tests.golden
	@$(BIN)/python -m tests.grafana.answers

bench: $(DEV) ## Measure speed and memory against their bounds, and page sizes, for docs/dev/performance.md
	@$(BIN)/python -m benchmarks.bench

bench-scale: $(DEV) ## Measure Prometheus and VictoriaMetrics with 250 miners, for docs/dev/performance.md: about an hour
	@scripts/system-packages
	@scripts/newest-programs
	@$(BIN)/python -m benchmarks.scale prometheus
	@PATH="$(CURDIR)/.cache/newest/usr/bin:$$PATH" $(BIN)/python -m benchmarks.scale prometheus
	@PATH="$(CURDIR)/.cache/newest/usr/bin:$$PATH" $(BIN)/python -m benchmarks.scale victoria-metrics

lock: $(DEV) ## Renew the lock files
	@scripts/lock

image: ## Build the container image
	docker build --tag chutes-exporter:$(shell sed -n 's/^__version__ = "\(.*\)"/\1/p' chutes_exporter/__init__.py) .

release: $(DEV) ## Write the files of a release to dist/: make release TAG=v1.2.3
	@$(BIN)/python -m deploy.release "$(TAG)" $(ARGS)

clean: ## Remove environments, caches and built packages
	rm -rf .venv .venv-* grafana/display/*/node_modules grafana/render/node_modules .cache .coverage .coverage.* .hypothesis .mypy_cache .pytest_cache .ruff_cache dist

$(RUNTIME): requirements.lock requirements-build.lock pyproject.toml scripts/venv
	@scripts/venv "$(PYTHON)" requirements.lock
	@touch $@

$(DEV): requirements-dev.lock $(RUNTIME)
	@scripts/venv "$(PYTHON)" requirements-dev.lock
	@touch $@
