# SPDX-License-Identifier: Apache-2.0
# Everything happens in .venv, made here. Needs nothing but Python 3.11 or newer.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check

.PHONY: demo test lint unit bench bench-ota clean fuzz soak model cuts storms bad-apps

demo: $(VENV)/.demo-ready
	@$(BIN)/python -m examples.demo $(DEMO_ARGS)

test: lint unit

lint: $(VENV)/.dev-ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/mypy --config-file boards/mypy.ini

# Three at a time on two cores: many tests wait for links, watchdogs and flashes as slow as the real ones.
unit: $(VENV)/.dev-ready
	$(BIN)/python -m pytest -n 3 --dist loadfile $(PYTEST_ARGS)

bench: $(VENV)/.dev-ready
	$(BIN)/python -m bench.agent

# Throughput, resumption, flash wear and heap of updates.
bench-ota: $(VENV)/.dev-ready
	$(BIN)/python -m bench.ota

fuzz: $(VENV)/.dev-ready
	$(BIN)/python -m tests.fuzz.mqtt $(FUZZ_ARGS)

soak: $(VENV)/.dev-ready
	$(BIN)/python -m tests.device.test_reconnects 10000
	$(BIN)/python -m tests.model.soak_jobs --jobs 10000

# 100,000 schedules of jobs, resets and lost messages; MODEL_ARGS="--seed N -v" replays one.
model: $(VENV)/.dev-ready
	$(BIN)/python -m tests.model.jobs --schedules 100000 --jobs 2 $(MODEL_ARGS)

# Every power cut, failing flash and decayed byte of docs/cuts.md; CUTS_ARGS="--replay ID" plays one again.
cuts: $(VENV)/.dev-ready
	$(BIN)/python -m hil.cuts --jobs 2 $(CUTS_ARGS)

# A million storms of eight cuts in a row.
storms: $(VENV)/.dev-ready
	$(BIN)/python -m hil.cuts --storms 1000000 --jobs 2 $(CUTS_ARGS)

# Applications that do everything wrong, each as an update of a virtual board; APPS="NAME ..." plays some.
bad-apps: $(VENV)/.dev-ready
	$(BIN)/python -m tests.integration.bad_apps $(APPS)

clean:
	rm -rf $(VENV) .demo build *.egg-info

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.demo-ready: pyproject.toml | $(VENV)/bin/python
	@echo "Installing what the demo needs into $(VENV) …"
	@$(PIP) -e '.[fleet,boards,linux]'
	@touch $@

$(VENV)/.dev-ready: pyproject.toml | $(VENV)/bin/python
	@echo "Installing what the tests need into $(VENV) …"
	@$(PIP) -e '.[dev]'
	@$(PIP) --no-deps --upgrade --target $(VENV)/typings 'micropython-esp32-stubs>=1.29' 'micropython-stdlib-stubs>=1.29'
	@touch $@ $(VENV)/.demo-ready
