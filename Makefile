# `make demo` and `make test` are the whole set-up; both make .venv with the pinned versions first.
PYTHON ?= python3
VENV := .venv
PY := $(VENV)/bin/python
# Tests that wait, for Ray and for limits, leave room for one more than there are cores.
WORKERS ?= $(shell expr $$(nproc 2>/dev/null || echo 2) + 1)

# Tests start hundreds of processes. Without its bytecode, each would compile the program again.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo demo-search demo-tuned test test-fast lint docs clean

demo: $(VENV)/.ready
	$(PY) -m harness run --backbones reidmamba,transreid,bot --datasets all --preset demo
	$(PY) -m harness claims --results demo/results
	$(PY) -m harness run --backbones reidmamba --datasets market1501 --preset demo --audit camera

demo-search: $(VENV)/.ready
	$(PY) -m harness tune --backbone reidmamba --dataset market1501 --space ratr --preset demo

demo-tuned: $(VENV)/.ready
	$(PY) -m harness run --recipe tuned --budget 6 --studies 2 --backbones reidmamba,transreid,bot --datasets market1501 \
		--preset demo --set training.epochs=4

test: $(VENV)/.ready
	$(PY) -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder

test-fast: $(VENV)/.ready
	$(PY) -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder -m "not slow"

lint: docs
	$(PY) -m ruff check
	$(PY) -m ruff format --check
	$(PY) -m mypy
	$(PY) -m codespell_lib *.md *.py *.toml docs backbones benchmarks datasets harness tests

# The documentation site; open site/index.html in a browser.
docs: $(VENV)/.ready
	NO_MKDOCS_2_WARNING=1 $(PY) -m mkdocs build --strict

$(VENV)/.ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(PY) -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable ".[dev]"
	touch $@

clean:
	rm -rf $(VENV) demo site
