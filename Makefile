# Everything runs in a virtual environment of its own; PYTHON picks the interpreter.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/pip install --quiet --disable-pip-version-check -c deploy/constraints.txt

BOTS_VENV ?= .venv-bots

.PHONY: setup bots demo demo-traffic test faults lint bench schemas clean

# Two stamps, so that a demo does not wait for the tools of the tests.
$(VENV)/.demo: pyproject.toml deploy/constraints.txt
	@command -v $(PYTHON) >/dev/null || { echo "no $(PYTHON): install Python 3.11 or newer, or name one: make PYTHON=..."; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "$(PYTHON) is older than 3.11: name a newer one: make PYTHON=..."; exit 1; }
	@# Without ensurepip (Debian's python3-venv), or after Ctrl-C, a venv has a python and no pip.
	@test -x $(BIN)/pip || $(PYTHON) -m venv $(VENV)
	@echo "installing the worker into $(VENV) ..."
	@$(PIP) -e '.[model,embedded,serve]'
	@touch $@

$(VENV)/.dev: $(VENV)/.demo
	@echo "installing the tools for training and tests into $(VENV) ..."
	@$(PIP) -e '.[dev]'
	@touch $@

# NautilusTrader and the MQTT broker of the tests hold pandas, fsspec, uvloop and websockets back.
$(BOTS_VENV)/.bots: pyproject.toml deploy/constraints-bots.txt $(VENV)/.demo
	@test -x $(BOTS_VENV)/bin/pip || $(PYTHON) -m venv $(BOTS_VENV)
	@echo "installing the bots that need an environment of their own into $(BOTS_VENV) ..."
	@$(BOTS_VENV)/bin/pip install --quiet --disable-pip-version-check -c deploy/constraints-bots.txt -e '.[bots-dev]'
	@touch $@

setup: $(VENV)/.dev $(BOTS_VENV)/.bots

bots: $(BOTS_VENV)/.bots

# Embedded servers, the bundled model, sample chatter, a live board; Ctrl-C ends it.
demo: $(VENV)/.demo
	@$(BIN)/kbert demo

# Sample articles to the monthly narrative index, with a chart.
demo-traffic: $(VENV)/.dev
	@$(BIN)/kbert demo --pipeline traffic

test: $(VENV)/.dev $(BOTS_VENV)/.bots
	@failed=0; $(BOTS_VENV)/bin/pytest tests/bots || failed=$$?; \
	$(BIN)/pytest -m 'not slow' --ignore=tests/bots && exit $$failed

# Every fault, the flood of 200,000 messages too, and a table of what was lost and repeated; about 15 minutes.
# ARGS are the matrix's options: make faults ARGS="--delivery exactly_once".
faults: $(VENV)/.dev
	@$(BIN)/python -m tests.faults.matrix $(ARGS)

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python deploy/check_licences.py $(BOTS_VENV)/bin/python
	$(BIN)/python deploy/check_advisories.py

# On a machine with nothing else to do; some 40 minutes. tests/benchmarks/README.md says what each measures.
bench: $(VENV)/.dev
	@$(PIP) -e '.[bench]'
	$(BIN)/kbert bench engine --plot tests/benchmarks/results/engine.png
	$(BIN)/kbert bench pipeline
	$(BIN)/kbert bench latency --plot tests/benchmarks/results/latency.png
	$(BIN)/kbert bench aggregates
	$(BIN)/kbert bench serve
	$(BIN)/kbert bench soak
	$(BIN)/pytest -m slow -s tests/benchmarks

schemas: $(VENV)/.demo
	$(BIN)/python -m schemas.generate

clean:
	rm -rf $(VENV) $(BOTS_VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache
