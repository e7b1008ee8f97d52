# `make` alone prints what there is.
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-builtin-rules --no-print-directory

# Override on the command line: make demo DEMO_ARGS="--nodes 2"
VENV ?= .venv
DEMO_ARGS ?=
PYTEST_ARGS ?=
SOAK_SECONDS ?= 3600
FUZZ_ARGS ?=
MUTANTS_ARGS ?=
BENCH_ARGS ?=
PROFILE_ARGS ?=
# Processes that share the tests. Most tests wait for real parts, so more than two processors can run at once.
WORKERS ?= 4

BIN := $(VENV)/bin
STAMP := $(VENV)/.clio-exporter-installed

.PHONY: help setup system-packages demo test test-fast lint format docs alert-tables rules dashboards soak fuzz bench profile mutants release clean distclean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-16s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

setup: $(STAMP) ## Create .venv and install the project with its development tools
	@:

$(STAMP): pyproject.toml constraints.txt
	@sh scripts/bootstrap.sh venv "$(abspath $(VENV))"
	@touch $@

system-packages: ## Install the system packages the tests use (as root; otherwise say which line to run)
	@sh scripts/bootstrap.sh packages test

demo: setup ## Start a real 4-node runtime with traffic, exporter, Prometheus and Grafana; Ctrl-C stops all of it
	@sh scripts/bootstrap.sh packages demo
	@$(BIN)/clio-exporter demo $(DEMO_ARGS)

test: setup system-packages ## Run the whole test suite
	@echo "test: the whole suite, in $(WORKERS) processes and then one by one; 25 to 30 minutes on two processors. The first time"
	@echo "test: older runtimes are installed into .cache, and images are built where there is a Docker engine"
	@sh scripts/test.sh $(BIN)/python $(WORKERS) $(PYTEST_ARGS)

test-fast: setup ## Run the unit tests only
	$(BIN)/python -m pytest tests/unit -n $(WORKERS) $(PYTEST_ARGS)

lint: setup ## Check style, formatting and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache
	$(BIN)/python -m scripts.docs --check

format: setup ## Format the code and apply the safe fixes
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

docs: setup ## Generate docs/metrics.md, and the tables of settings and alerts, from the code
	@$(BIN)/python -m scripts.docs

alert-tables: setup ## Put alerts to the test (a quarter of an hour) and write what came of it into docs/alerting.md and runbooks.md
	CLIO_WRITE_TABLES=1 $(BIN)/python -m pytest -n 0 tests/integration/test_alerts_in_earnest.py \
		tests/integration/test_alerts_simulated.py $(PYTEST_ARGS)
	@$(BIN)/python -m scripts.docs

rules: docs ## Generate prometheus/rules/*.yml from their tables

dashboards: setup ## Generate grafana/dashboards/*.json
	@$(BIN)/python -m grafana.generator

soak: setup ## Scrape real runtimes in every way for SOAK_SECONDS (an hour) and check what it leaves behind
	CLIO_SOAK_SECONDS=$(SOAK_SECONDS) $(BIN)/python -m pytest -m soak --timeout=0 $(PYTEST_ARGS)

fuzz: setup ## Give a million damaged inputs to every decoder of foreign bytes (three minutes; FUZZ_ARGS="--help")
	$(BIN)/python -m tests.fuzz $(FUZZ_ARGS)

bench: setup ## Measure scrapes of simulated and real nodes as ratios (BENCH_ARGS=--write puts them into docs/performance.md)
	$(BIN)/python -m tests.bench.scale $(BENCH_ARGS)

profile: setup ## Record where a scrape's time goes with py-spy, as a flame graph in .profile (PROFILE_ARGS="--help")
	@$(BIN)/python -m tests.bench.profile $(PROFILE_ARGS)

mutants: setup ## Break core modules in a sample of places, and see which the unit tests notice (an hour; MUTANTS_ARGS="--help")
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt -e '.[mutants]'
	$(BIN)/python -m tests.mutants $(MUTANTS_ARGS)

release: setup ## Make wheel, source distribution, SBOM and images; upload nothing
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt -e '.[release]'
	@sh scripts/release.sh $(abspath $(BIN))/python

clean: ## Remove build results and caches
	rm -rf build dist *.egg-info .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find client web exporter control_api lab grafana tests -type d -name __pycache__ -prune -exec rm -rf {} +

distclean: clean ## Remove .venv and cached test environments too
	rm -rf $(VENV) .cache
