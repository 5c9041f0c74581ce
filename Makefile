# Everything that a checkout needs. A machine with Python >= 3.11 (with venv) and make is enough.
#
#   make test                      what CI runs
#   make test PYTHON=python3.12    the same with another Python (rebuilds .venv)

PYTHON ?= python3
PORT ?= 8000
REQUESTS ?= 50000
STRESS_SECONDS ?= 600
PYTEST_ARGS ?=
FASTAPI ?= newest
CHROMIUM ?= /usr/bin/chromium
SUDO ?= $(if $(filter-out 0,$(shell id -u)),sudo)

VENV := .venv
OLDEST := .venv-oldest
BROWSER := .venv-browser
DOCS := .venv-docs
BIN := $(VENV)/bin
# One stamp for each Python: another PYTHON builds the environment anew.
STAMP := $(VENV)/.installed-$(subst /,_,$(PYTHON))
OLDEST_STAMP := $(OLDEST)/.installed-$(subst /,_,$(PYTHON))
BROWSER_STAMP := $(BROWSER)/.installed-$(subst /,_,$(PYTHON))
DOCS_STAMP := $(DOCS)/.installed-$(subst /,_,$(PYTHON))
# Long runs and those that start many processes: coverage would make them longer, and the other tests reach it alone.
WITHOUT_COVERAGE := tests/routing/test_differential.py tests/project/test_cost.py tests/project/test_reading_cost.py tests/stress \
	tests/stores/test_store_faults.py tests/stores/test_servers_with_stores.py tests/project/test_examples.py
SOURCES := $(wildcard fastapi_maintenance tests examples benchmarks)

export PIP_DISABLE_PIP_VERSION_CHECK := 1

.DEFAULT_GOAL := help
.PHONY: help demo serve test check lint types unit format test-oldest matrix test-browser screenshots docs fuzz real-suites stress bench bench-latency wheel-test clean

help: ## list these targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1@\2/p' $(firstword $(MAKEFILE_LIST)) | \
		while IFS=@ read -r name text; do printf '%-20s %s\n' "$$name" "$$text"; done

demo: $(STAMP) ## start the example service with two workers and show what it answers
	@$(BIN)/python -m examples.demo

serve: $(STAMP) ## run the example service on 127.0.0.1:8000 (PORT=...) for a browser
	@echo "http://127.0.0.1:$(PORT) /operator/ has the switches, http://127.0.0.1:$(PORT) shows what they close; Ctrl-C ends the service."
	@$(BIN)/python -m uvicorn examples.service:app --host 127.0.0.1 --port $(PORT) --workers 2

test: lint types unit ## lint, types, all tests with coverage

check: test ## the same as test

lint: $(STAMP) ## ruff: rules and format
	$(BIN)/python -m ruff check $(SOURCES)
	$(BIN)/python -m ruff format --check $(SOURCES)

types: $(STAMP) ## mypy --strict
	$(BIN)/python -m mypy $(SOURCES)

unit: $(STAMP) ## all tests, with branch coverage of the package
	$(BIN)/python -m coverage erase
	$(BIN)/python -m coverage run -m pytest -n auto $(WITHOUT_COVERAGE:%=--ignore=%) $(PYTEST_ARGS)
	$(BIN)/python -m coverage combine -q
	$(BIN)/python -m coverage report
	$(BIN)/python -m pytest -n auto $(WITHOUT_COVERAGE) $(PYTEST_ARGS)

format: $(STAMP) ## put the sources into shape
	$(BIN)/python -m ruff check --fix-only $(SOURCES)
	$(BIN)/python -m ruff format $(SOURCES)

test-oldest: $(OLDEST_STAMP) ## all tests on the oldest FastAPI that is supported
	$(OLDEST)/bin/python -m pytest -n auto $(PYTEST_ARGS)

matrix: $(STAMP) ## all tests on each Python and FastAPI that is supported (MATRIX="--python 3.13 --fastapi newest")
	$(BIN)/python -m tests.matrix $(MATRIX)

test-browser: $(BROWSER_STAMP) $(CHROMIUM) ## the maintenance page in Chromium (CHROMIUM=/path/to/it); screenshots to look at
	CHROMIUM='$(CHROMIUM)' $(BROWSER)/bin/python -m pytest -n 4 tests/browser $(PYTEST_ARGS)
	@echo "Screenshots: tests/browser/screenshots"

screenshots: $(BROWSER_STAMP) $(CHROMIUM) ## make the pictures of the documentation, docs/images
	CHROMIUM='$(CHROMIUM)' $(BROWSER)/bin/python -m tests.browser.pictures

$(CHROMIUM):
	@echo 'Installing Chromium'
	@$(SUDO) apt-get update -qq && $(SUDO) apt-get install -y -qq chromium fonts-noto-color-emoji

docs: $(DOCS_STAMP) ## the documentation as a site: site/index.html
	NO_MKDOCS_2_WARNING=1 $(DOCS)/bin/python -m mkdocs build --strict --clean --quiet
	@echo "Open site/index.html; or, with the search: $(PYTHON) -m http.server -d site"

fuzz: $(STAMP) ## the long differential run (REQUESTS=50000)
	$(BIN)/python -m pytest tests/routing/test_differential.py --requests $(REQUESTS) $(PYTEST_ARGS)

real-suites: $(STAMP) ## FastAPI's and Starlette's own tests, with the middleware around each of their apps (FASTAPI=0.128)
	$(BIN)/python -m tests.injected --fastapi '$(FASTAPI)' $(SUITES_ARGS)

stress: $(STAMP) ## the long runs: writers, holds, and ten minutes (STRESS_SECONDS=600) of toggling under load and of a soak
	$(BIN)/python -m tests.stress $(STORES)
	$(BIN)/python -m tests.stress.holds $(STORES)
	$(BIN)/python -m tests.stress.toggling --seconds $$(($(STRESS_SECONDS) / 2)) $(filter-out sqlite,$(STORES))
	$(BIN)/python -m tests.stress.soak --seconds $$(($(STRESS_SECONDS) / 2)) $(filter-out sqlite,$(STORES))

bench: $(STAMP) ## what the middleware costs (BENCH_ARGS="--quick", --instructions, --write FILE)
	$(BIN)/python benchmarks/run.py $(BENCH_ARGS)

bench-latency: $(STAMP) ## how soon eight processes see a toggle (CASES="redis-push redis-poll file postgresql")
	$(BIN)/python benchmarks/latency.py $(CASES)

wheel-test: $(STAMP) ## build wheel and sdist, install each in an empty environment and examine it
	rm -rf build dist
	$(BIN)/python -m hatchling build -d dist
	$(call examine,wheel,dist/*.whl)
	$(call examine,sdist,dist/*.tar.gz)

# $(call examine,name,file): install it without any extra, and nothing else.
define examine
	$(PYTHON) -m venv build/$(1)
	build/$(1)/bin/python -m pip install --quiet $(2)
	build/$(1)/bin/python -I tests/installed.py
endef

clean: ## remove everything that can be made again
	rm -rf $(VENV) $(OLDEST) $(BROWSER) $(DOCS) .matrix .suites build dist site tests/browser/screenshots .coverage .coverage.* htmlcov .hypothesis .mypy_cache \
		.pytest_cache .ruff_cache
	find $(SOURCES) -name __pycache__ -type d -prune -exec rm -rf {} +

# $(call environment,folder,dependency group): an editable install in a fresh virtual environment.
# The pip that comes with Python may be too old for dependency groups, so it is renewed first.
define environment
	@$(PYTHON) -c 'import sys; sys.exit(None if sys.version_info >= (3, 11) else \
		"Python 3.11 or newer is needed, this is " + sys.version.split()[0] + "; try make PYTHON=python3.12")'
	@echo "Installing into $(1) (once)"
	@$(PYTHON) -m venv --clear $(1)
	@$(1)/bin/python -m pip install --quiet --upgrade 'pip>=25.1'
	@$(1)/bin/python -m pip install --quiet --editable . --group $(2)
	@touch $@
endef

$(STAMP): pyproject.toml
	$(call environment,$(VENV),dev)

$(OLDEST_STAMP): pyproject.toml
	$(call environment,$(OLDEST),oldest)

$(BROWSER_STAMP): pyproject.toml
	$(call environment,$(BROWSER),browser)

$(DOCS_STAMP): pyproject.toml
	$(call environment,$(DOCS),docs)
