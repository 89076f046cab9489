# The whole set-up is one stamp: a virtual environment with the pinned versions and this checkout in it.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Test processes: one per core, 16 at most, because each loads torch. JOBS=0 runs the tests in one process.
JOBS ?= auto
WORKERS := -n $(JOBS) --maxprocesses 16 --dist worksteal
# Development clusters side by side, each with a test process: their tests mostly wait for SLURM's timers.
CLUSTERS ?= 2
# Tests that `make test` runs in one process at its end; .ci/run leaves out the cluster, which it tests as a whole.
ALONE ?= tests/cluster tests/benchmarks tests/browser

# Bytecode is kept even where the environment forbids it: the tests start hundreds of processes from these sources.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo demo-training gallery reproduction reference quick quick-a-m quick-n-z test test-cores test-alone test-cluster lint docs bench gpu chaos wheel wheel-check clean

demo: $(VENV)/.installed
	$(BIN)/pai-bench sweep
	$(BIN)/pai-bench report
	@echo "next: $(BIN)/pai-bench report --reference; $(BIN)/pai-bench sweep --controls shuffle,reinit; $(BIN)/pai-bench reproduce list"

# Upper bounds that see training, and smaller dense networks, beside pruning at initialisation (docs/dynamic.md).
demo-training: $(VENV)/.installed
	$(BIN)/pai-bench sweep --methods erk,prospr,rigl:every=20,ltr:cycles=3,small-dense \
		--sparsities 0.8,0.9,0.95,0.98,0.99 --seeds 0-2 --results build/training
	$(BIN)/pai-bench report --results build/training --out build/training/report

# docs/reproduction.md and its figures, from results/reference.
reproduction: $(VENV)/.installed
	$(BIN)/pai-bench reproduce page --out docs --results build/none

# docs/reference-*.md and their figures: the reports on the tables of results/reference.
reference: $(VENV)/.installed
	$(BIN)/python docs/draw_reference.py

# The figures of docs/gallery.md, by the commands that it lists.
gallery: $(VENV)/.installed
	$(BIN)/python docs/draw_gallery.py

# For every commit: lint, types, the quick unit tests, and the fingerprints of stored results. Two processes of pytest with
# half of the files each: with pytest-xdist, each process would collect all tests and report every one to a third.
quick: lint
	$(MAKE) --no-print-directory --jobs=2 quick-a-m quick-n-z

quick-a-m: TESTS = tests/unit/test_[a-m]*.py tests/golden/test_fingerprints.py
quick-n-z: TESTS = tests/unit/test_[n-z]*.py
quick-a-m quick-n-z: $(VENV)/.installed
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -m "not slow" $(TESTS)

# All tests on all cores; then the sweep on a cluster, the benchmarks and the browser, one after the other.
test: test-cores test-alone

test-cores: $(VENV)/.installed
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest $(WORKERS) --ignore tests/cluster --ignore tests/benchmarks \
		--ignore tests/browser

test-alone: $(VENV)/.installed
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest $(ALONE)

test-cluster: $(VENV)/.installed
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(CLUSTERS) --dist worksteal tests/cluster -m ""

lint: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/codespell
	$(BIN)/mypy

# The site, from build/docs/index.html on. Every warning is an error, also one about a link that leads nowhere.
docs: $(VENV)/.docs
	$(BIN)/python -m sphinx --fail-on-warning --keep-going --quiet -c docs/site docs build/docs

bench: $(VENV)/.installed
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/benchmarks --benchmark-enable --benchmark-only \
		--benchmark-autosave --benchmark-columns=median,iqr,rounds $(BENCH)

# With the Python of the machine, so that its own build of torch is used; nothing is installed.
gpu:
	$(PYTHON) tests/gpu.py build/gpu $(GPU)

chaos: $(VENV)/.installed
	OMP_NUM_THREADS=1 $(BIN)/python tests/chaos.py --kills 100

wheel: $(VENV)/.installed
	$(BIN)/python -m build --wheel

# Test of the wheel without this checkout.
wheel-check:
	rm -rf build/lib build/bdist.* dist
	$(MAKE) wheel
	.ci/wheel

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade "pip>=23.2"
	$(BIN)/python -m pip install --quiet -c constraints.txt -e ".[dev]"
	touch $@

# A separate stamp, so that tests do not wait for packages that only the site needs.
$(VENV)/.docs: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet -c constraints.txt -e ".[docs]"
	touch $@

clean:
	rm -rf $(VENV) build dist *.egg-info
