# The whole set-up is one stamp: a virtual environment with the pinned versions and this checkout in it.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test test-cluster lint bench gpu chaos wheel clean

demo: $(VENV)/.installed
	$(BIN)/pai-bench sweep
	$(BIN)/pai-bench report

test: $(VENV)/.installed
	$(BIN)/python -m pytest

test-cluster: $(VENV)/.installed
	$(BIN)/python -m pytest tests/cluster -m ""

lint: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(VENV)/.installed
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/benchmarks --benchmark-enable --benchmark-only \
		--benchmark-autosave --benchmark-columns=median,iqr,rounds $(BENCH)

gpu: $(VENV)/.installed
	$(BIN)/python tests/gpu.py build/gpu $(GPU)

chaos: $(VENV)/.installed
	OMP_NUM_THREADS=1 $(BIN)/python tests/chaos.py --kills 100

wheel: $(VENV)/.installed
	$(BIN)/python -m build --wheel

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade "pip>=23.2"
	$(BIN)/python -m pip install --quiet -c constraints.txt -e ".[dev]"
	touch $@

clean:
	rm -rf $(VENV) build dist *.egg-info
