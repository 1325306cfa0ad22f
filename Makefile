# Redecide's commands. Everything runs in `.venv`, which the first target that needs it makes; nothing needs root.
# Tools are configured in pyproject.toml; versions are pinned in constraints.txt.

# The first of these that runs and is a Python we support: a name on PATH may be a shim without an interpreter.
PYTHON ?= $(shell for p in python3.11 python3 python3.12 python3.13; do \
	$$p -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null && { echo $$p; break; }; done)
# More for pytest: make test PYTEST_ARGS='-x -k ledger'
PYTEST_ARGS ?=
# A worker a core; a file's tests stay together, in the order they are collected. One process: make test WORKERS=
WORKERS ?= -n auto --dist loadfile --no-loadscope-reorder

# Relative, so that a path with spaces works.
BIN := .venv/bin
INSTALLED := .venv/.installed

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo test slow browser check lab bench clean

# The tests start some hundred interpreters: where no byte code is kept, each compiles both packages again.
unexport PYTHONDONTWRITEBYTECODE

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-7s %s\n", $$1, $$2}' Makefile

demo: $(INSTALLED)  ## govern, record, replay, score and log real agent tool calls
	$(BIN)/redecide demo

test: $(INSTALLED)  ## run the tests, but for those that `make slow` runs
	$(BIN)/pytest $(WORKERS) -m "not slow" $(PYTEST_ARGS)

slow: $(INSTALLED)  ## run the rest: the demo, every notebook, the browser, long generated runs
	$(BIN)/pytest $(WORKERS) -m slow $(PYTEST_ARGS)

browser: $(INSTALLED)  ## click through the views in a real JupyterLab (needs Debian's chromium)
	$(BIN)/pytest $(WORKERS) -m browser $(PYTEST_ARGS)

check: $(INSTALLED)  ## lint, formatting, types
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

lab: $(INSTALLED)  ## open JupyterLab on the notebooks
	$(BIN)/redecide lab

bench: $(INSTALLED)  ## time the columnar engine and Cedar on the same calls
	$(BIN)/redecide bench replay

clean:  ## remove the environment, caches and what the demo made
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis .deepeval build dist redecide-demo
	find runtime workbench tests -name __pycache__ -type d -prune -exec rm -rf {} +

# A venv whose interpreter is gone is made anew.
$(INSTALLED): pyproject.toml constraints.txt
	@rm -f $@
	@$(BIN)/python -c '' 2>/dev/null || { \
		test -n "$(PYTHON)" || { echo "no Python 3.11 to 3.13 found; name one: make PYTHON=/path/to/python3.11" >&2; exit 1; }; \
		echo "creating .venv with $$("$(PYTHON)" --version)"; rm -rf .venv; "$(PYTHON)" -m venv .venv; }
	@echo "installing Redecide and what it needs into .venv (about 1.9 GB; a minute or two, the first time)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[all,dev]'
	@echo "installed: $$($(BIN)/redecide --version)"
	@touch $@
