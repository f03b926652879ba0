# `make test` is what continuous integration runs. Every target is safe to repeat and cheap when nothing changed.
.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help setup notebooks book test lock clean

export OMP_NUM_THREADS = 1
# neither a user's settings of matplotlib nor the encoding of a terminal decides what is made
export MATPLOTLIBRC = /dev/null
export MPLBACKEND = Agg
export PYTHONUTF8 = 1
export DYNISO_RUNS ?= $(CURDIR)/build/runs
# compiled games are kept between processes: chapters and tests would compile each of them again
export JAX_COMPILATION_CACHE_DIR ?= $(CURDIR)/build/jax
export JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS ?= 0
JOBS ?= 2
BIN := .venv/bin
STAMP := .venv/.installed-$(shell cat pyproject.toml constraints.txt | cksum | tr ' ' '-')
TIMED := sh tools/timed.sh

help: ## list the targets
	@sed -n 's/^\([a-z]*\):[^#]*## /  make \1\t/p' Makefile

setup: $(STAMP) ## create .venv and install the pinned dependencies
$(STAMP):
	@$(TIMED) setup sh tools/setup.sh $@

notebooks: $(STAMP) ## execute the chapters that are not current, into book/nb
	@$(TIMED) notebooks $(BIN)/python tools/notebooks.py build --jobs $(JOBS)

book: notebooks ## build the site, warnings as errors, into build/_build/html
	@$(TIMED) site $(BIN)/python tools/build_site.py

test: book ## build the book, lint, check types, run every test, execute the chapters' cells again
	@$(TIMED) lint $(BIN)/ruff check .
	@$(TIMED) format $(BIN)/ruff format --check .
	@$(TIMED) types $(BIN)/mypy
	@$(TIMED) tests $(BIN)/python -m pytest -q -n $(JOBS)
	@DYNISO_FIGURES="$$PWD/build/nbval-figures" PYTHONPATH=tools$${PYTHONPATH:+:$$PYTHONPATH} $(TIMED) chapters \
		$(BIN)/python -m pytest -q -p nbval_kernels -n $(JOBS) --dist loadfile --nbval-lax book/nb

lock: ## write constraints.txt from pyproject.toml (needs uv; LOCK=--upgrade for newer versions)
	@$(TIMED) lock sh tools/lock.sh $(LOCK)

clean: ## remove what was built; .venv stays
	rm -rf build book/nb book/api figures notebooks/figures .pytest_cache .mypy_cache .ruff_cache .hypothesis
