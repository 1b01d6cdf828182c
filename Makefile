# Everything from a fresh clone: `make demo` runs the main job, `make test` the tests. Needs Python 3.11 or later.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
SOURCES := aspen supervisors examples tests benchmarks

# The interpreters beside the main one, on which the kernel and the virtual world are tested too.
PYTHONS ?= $(wildcard $(HOME)/.pyenv/versions/3.12.*/bin/python $(HOME)/.pyenv/versions/3.13.*/bin/python) \
	$(filter-out %shims/python3.12 %shims/python3.13,$(shell command -v python3.12; command -v python3.13))

# pdoc documents what `__all__` names; the modules behind a package's names have the guides, so they are named here.
DOCUMENTED := ./aspen $(addprefix aspen.,errors types limits traits trust wire actor sim node node.config node.reports otp kv names blocking) \
	$(addprefix aspen.otp.,actor starting supervisor dynamic parent partition application state_machine states task \
	event_manager registry tree) \
	$(addprefix aspen.kv.,client interactive txn types tuples watch holding recipes) supervisors

.PHONY: help demo test test-processes test-worlds pythons check format bench soak docs clean

help:
	@echo "make demo    index the standard library on three nodes, with workers and the coordinator's node killed"
	@echo "make test    run the tests"
	@echo "make pythons the kernel's and the virtual world's tests on Python 3.12 and 3.13"
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
	@echo "The logs of the nodes, with a report of each crash, go to demo-logs/"
	@$(BIN)/aspen up --nodes 3 examples.indexer:Indexer --name demo --log-dir demo-logs -- --chaos

# Two halves at a time, on two cores: what runs processes, sockets and disks, and what runs in a virtual world.
PROCESSES := $(addprefix tests/,cli distributed examples io torture typing docs)

test: $(STAMP)
	@$(MAKE) --no-print-directory --jobs=2 --output-sync=target test-processes test-worlds

test-processes: $(STAMP)
	$(BIN)/python -m pytest $(PROCESSES)

test-worlds: $(STAMP)
	$(BIN)/python -m pytest tests $(addprefix --ignore=,$(PROCESSES))

pythons:
	@test -n "$(strip $(PYTHONS))" || { echo "no other Python found; name them: make pythons PYTHONS=/path/to/python3.12"; exit 1; }
	@set -e; for python in $(PYTHONS); do \
		venv=$(VENV)-$$($$python -c 'import sys; print("%d.%d" % sys.version_info[:2])'); \
		echo "== $$($$python --version), in $$venv"; \
		test -e $$venv/.installed || { $$python -m venv $$venv; \
			$$venv/bin/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'; touch $$venv/.installed; }; \
		$$venv/bin/python -m pytest tests/actor tests/sim tests/test_sim_world.py; \
	done

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
	$(BIN)/pdoc --docformat google --output-directory docs/api $(DOCUMENTED)

clean:
	rm -rf $(VENV) docs/api build *.egg-info .mypy_cache .ruff_cache .hypothesis .coverage
