.DEFAULT_GOAL := help
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
WM := $(BIN)/wm

.PHONY: help install demo test test-slow lint types bench bench-scale bench-exchange docs lock clean

help:  ## this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 12

install: $(BIN)/.installed  ## a virtual environment in .venv with everything the laptop needs

$(BIN)/.installed: images/requirements.laptop.txt pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --require-hashes -r images/requirements.laptop.txt
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	touch $@

demo: install  ## from nothing to a car that drives: the run `demo` in ./runs
	$(WM) run --preset demo --run demo

test: install  ## every test that needs nothing but this machine
	$(BIN)/python -m pytest -n 2 --dist loadfile

test-slow: install  ## kill and repeat whole runs: minutes
	$(BIN)/python -m pytest -n 0 -m slow

lint: install  ## ruff, and imports that point one way
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

types: install  ## mypy, strict
	$(BIN)/mypy

bench: install  ## steps per second and core, beside the limit and the plain way, of this machine
	taskset -c 0 $(BIN)/python bench/closed_loop.py
	taskset -c 0 $(BIN)/python bench/closed_loop.py 1.0
	taskset -c 0 $(BIN)/python bench/rollouts.py

bench-scale: install  ## the evolution on 16 to 1,024 simulated workers: time, failures, requests, dollars
	$(BIN)/python bench/scale.py

bench-exchange: install  ## what 64 workers ask of a real S3 server, and how long they wait for it
	PYTHONPATH=tests $(BIN)/python bench/exchange.py

docs: install  ## write docs/commands.md from the commands' own help
	$(BIN)/python -m wm.documentation > docs/commands.md

lock: install  ## renew the lock files (needs uv)
	uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-emit-find-links \
	    --no-header --extra train --extra report --extra s3 --extra dev --output-file images/requirements.laptop.txt pyproject.toml images/build.in

clean:  ## remove the virtual environment and caches; runs stay
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .import_linter_cache
