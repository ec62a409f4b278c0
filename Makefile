# One command each; all of them work in a fresh clone. PYTHON must be 3.11 or newer.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt
# Tests of brokers and processes wait as often as they compute.
PROCESSES ?= $(shell echo $$(($$(getconf _NPROCESSORS_ONLN) * 3 / 2)))
ARGS ?=
# Whose process ends is a failure. pytest-xdist would give its whole file to a new process, and do so again for ever.
SPREAD = --dist loadfile --max-worker-restart 0

.PHONY: setup setup-train demo test tests test-train explore chaos chaos-mutations overload audit fuzz lint style types lock clean

setup: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml constraints.txt
	@echo 'installs into $(VENV), which takes minutes the first time' >&2
	@$(PYTHON) -m venv $(VENV)
	@$(PIP) --editable '.[demo,dev,report,text]' >&2
	@touch $@

setup-train: $(VENV)/.installed-train

$(VENV)/.installed-train: $(VENV)/.installed
	@echo 'installs PyTorch and more into $(VENV), which takes minutes the first time' >&2
	@$(PIP) --editable '.[demo,dev,report,text,train,evaluate,checks]' >&2
	@touch $@

# A shop full of simulated shoppers on an embedded broker: make demo ARGS="--seconds 45 --json"
demo: setup
	@$(BIN)/salience demo $(ARGS)

# Everything but training; the integration tests start Apache Kafka themselves. Types take one processor a minute or
# two, in which the other had nothing to do: they are checked beside the tests, and either's failure is told at the end.
test: setup style
	@$(MAKE) --no-print-directory --jobs 2 types tests

tests: setup
	$(BIN)/python -m pytest -m "not train" --numprocesses $(PROCESSES) $(SPREAD) $(ARGS)

# Training and export with PyTorch, and River's own checks of our estimator.
test-train: setup-train
	$(BIN)/python -m pytest -m train --numprocesses $(shell getconf _NPROCESSORS_ONLN) $(SPREAD) $(ARGS)

# Property tests with examples that nobody has tried: make explore ARGS="tests/property -x". A thousand examples may take
# longer than a test is given; whoever has less patience says so.
explore: setup
	$(BIN)/python -m pytest -m "hypothesis and not integration and not train" --hypothesis-profile explore --timeout 3600 \
		-o faulthandler_timeout=3900 $(ARGS)

# What PyPI's advisory service knows against the pinned dependencies; needs the network.
audit: setup
	@$(PIP) 'pip-audit>=2.9,<3' >&2
	@$(BIN)/pip-audit --requirement constraints.txt --no-deps --disable-pip --strict $(ARGS)

# Hostile bytes, guided by coverage (Linux): make fuzz ARGS="--target all --runs 100000"
fuzz: setup
	@$(PIP) --editable '.[fuzz]' >&2
	@$(BIN)/python -m tests.fuzz.run $(ARGS)

# Faults on three nodes of Apache Kafka, drawn from a seed: make chaos ARGS="--minutes 20 --seed 7 --json"
chaos: setup
	@$(BIN)/python -m tests.integration.chaos $(ARGS)

# Each mistake that the fault harness must find, made in a worker and found.
chaos-mutations: setup
	@$(BIN)/python -m tests.integration.chaos.prove $(ARGS)

# One worker given 1.5 times what it can take, for minutes: make overload ARGS="--minutes 10"
overload: setup
	@$(BIN)/python -m tests.integration.chaos.overload $(ARGS)

lint: style types

style: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: setup
	$(BIN)/mypy

# Lock what a fresh environment resolves to now, all extras included.
lock:
	rm -rf build/lock && $(PYTHON) -m venv build/lock
	build/lock/bin/python -m pip install --quiet --editable '.[demo,dev,report,text,train,evaluate,checks,trace,fuzz]'
	build/lock/bin/python -m pip freeze --all --exclude-editable --exclude pip --exclude salience > build/lock/constraints.txt
	mv build/lock/constraints.txt constraints.txt

clean:
	rm -rf $(VENV) build .mypy_cache .ruff_cache .pytest_cache .hypothesis
