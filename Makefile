# Everything from a fresh clone: `make demo` runs the main job, `make test` the tests. Needs Python 3.11 or later.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
SOURCES := aspen supervisors examples tests benchmarks

.PHONY: help demo test check format bench soak docs clean

help:
	@echo "make demo    index the standard library with crashing workers, and say what to type next"
	@echo "make test    run the tests"
	@echo "make check   format, lint, types, import ladder"
	@echo "make bench   measure the kernel, and its peers where they are installed"
	@echo "make soak    the long campaigns"
	@echo "make docs    the API reference, in docs/api/"

$(STAMP): setup.cfg pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Aspen needs Python 3.11 or later; try make PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@

demo: $(STAMP)
	@echo "The log, with a report of each crash, goes to demo.log"
	@$(BIN)/aspen run examples.indexer:Indexer --name demo --log-file demo.log -- --chaos

test: $(STAMP)
	$(BIN)/python -m pytest

check: $(STAMP)
	$(BIN)/ruff format --check $(SOURCES)
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

format: $(STAMP)
	$(BIN)/ruff format $(SOURCES)
	$(BIN)/ruff check --fix $(SOURCES)

bench: $(STAMP)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[bench]'
	$(BIN)/python benchmarks/compare.py

soak: $(STAMP)
	ASPEN_SOAK=1 $(BIN)/python -m pytest -p no:randomly tests

docs: $(STAMP)
	$(BIN)/pdoc --docformat google --output-directory docs/api aspen '!aspen.bench' '!aspen.cli' supervisors

clean:
	rm -rf $(VENV) docs/api build *.egg-info .mypy_cache .ruff_cache .hypothesis .coverage
