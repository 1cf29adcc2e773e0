# Everything a fresh machine needs: `make bench` and `make test` set themselves up.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
UV     := 0.13.9
ARGS   ?=

.DELETE_ON_ERROR:
.PHONY: help bench test doctor lint benchmarks clean

help:
	@echo "make bench       run the embedded benchmark (ARGS='suite=mini_cross_gender' narrows it)"
	@echo "make test        ruff, mypy and the test suite"
	@echo "make doctor      check every judge against recordings whose answers are known"
	@echo "make benchmarks  time the slow parts (pytest-benchmark)"
	@echo "make clean       remove the virtual environment and caches (never outputs/)"

# Remade when what is asked for changes.
$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed; say which: make PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv==$(UV)
	$(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python --constraint constraints.txt --editable '.[weights,train,test]'
	@touch $@

bench: $(VENV)/.installed
	$(BIN)/vcbench run $(ARGS)

doctor: $(VENV)/.installed
	$(BIN)/vcbench doctor $(ARGS)

lint: $(VENV)/.installed
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

test: lint
	$(BIN)/pytest $(ARGS)

benchmarks: $(VENV)/.installed
	$(BIN)/pytest benchmarks $(ARGS)

clean:
	rm -rf $(VENV) build *.egg-info .mypy_cache .ruff_cache .pytest_cache
