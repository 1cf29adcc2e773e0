# Everything a fresh machine needs: `make bench` and `make test` set themselves up.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
UV     := 0.13.9
ARGS   ?=
EXTRAS ?= weights,train,test,docs
PYTHONS ?=

.DELETE_ON_ERROR:
.PHONY: help bench test quick test-benchmarks test-install test-isolated test-ray doctor docs lint benchmarks clean

help:
	@echo "make bench       run the embedded benchmark (ARGS='suite=mini_cross_gender' narrows it)"
	@echo "make test        ruff, mypy and the test suite"
	@echo "make quick       the tests that are fast (about a minute)"
	@echo "make test-benchmarks"
	@echo "                 test the programs in benchmarks/, which measure this project"
	@echo "make test-install"
	@echo "                 install the wheel by plain pip on every supported Python and run it"
	@echo "                 (PYTHONS='3.11 3.13' chooses; 6 GB of disk at a time)"
	@echo "make test-isolated"
	@echo "                 install the isolated baselines from the package index and convert with"
	@echo "                 random weights (10 GB of disk at a time, about half an hour)"
	@echo "make docs        build the site of the documentation into build/docs, check its links"
	@echo "make test-ray    install Ray (226 MB) and run what needs it: a cluster with parts that are killed"
	@echo "make doctor      check every judge against recordings whose answers are known"
	@echo "make benchmarks  time the slow parts (pytest-benchmark)"
	@echo "make clean       remove the virtual environment and caches (never outputs/)"

# Remade when what is asked for changes.
$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14) and "Python 3.11, 3.12 or 3.13 is needed; say which: make PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv==$(UV)
	$(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python --constraint constraints.txt --editable '.[$(EXTRAS)]'
	@touch $@

bench: $(VENV)/.installed
	$(BIN)/vcbench run $(ARGS)

doctor: $(VENV)/.installed
	$(BIN)/vcbench doctor $(ARGS)

# Every warning stops it: a dead link, a page outside of the navigation.
docs: $(VENV)/.installed
	$(BIN)/sphinx-build --quiet --fail-on-warning --keep-going --fresh-env --write-all --jobs auto \
		-c docs . build/docs
	cp build/docs/README.html build/docs/index.html
	@echo build/docs/index.html

lint: $(VENV)/.installed
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

# A process for each core, each of one thread: a file of tests stays in one process.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/pytest --numprocesses auto --dist loadfile --no-loadscope-reorder
test: lint
	$(PYTEST) --ignore tests/benchmarks $(ARGS)

test-benchmarks: $(VENV)/.installed
	$(PYTEST) tests/benchmarks $(ARGS)

# What to run while typing: `tests/slow.txt` lists what it leaves out.
quick: $(VENV)/.installed
	$(PYTEST) -q -m 'not slow and not isolated and not ray' $(ARGS)

# Needs no .venv: a Python of its own for each environment, the constraints file for none.
test-install:
	$(PYTHON) tests/install/wheel.py $(ARGS) $(PYTHONS)

# Environments of other libraries, one at a time; docs/systems/README.md has the log.
test-isolated: $(VENV)/.installed
	OMP_NUM_THREADS=1 $(BIN)/pytest -s -m isolated tests/isolated $(ARGS)

# Its own target: Ray is large, and each of its clusters takes seconds to start.
test-ray: $(VENV)/.installed
	$(BIN)/uv pip install --quiet --python $(VENV)/bin/python --constraint constraints.txt --editable '.[weights,train,test,ray]'
	OMP_NUM_THREADS=1 $(BIN)/pytest -m ray tests/bench/stages/test_ray.py $(ARGS)

benchmarks: $(VENV)/.installed
	$(BIN)/pytest benchmarks $(ARGS)

clean:
	rm -rf $(VENV) build *.egg-info .mypy_cache .ruff_cache .pytest_cache
