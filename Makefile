# Two commands do everything: `make chat` and `make test`. `make help` lists the rest.
.DEFAULT_GOAL := help
.PHONY: help setup setup-test chat demo web test quick lint types format g lock nightly clean
PYTHON_ := .venv/bin/python
G_RUN ?= .build/g
G_MINUTES ?= 70
CHAOS_SEED ?= 1

help:  ## this list
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | awk -F'\t' '{printf "  make %-12s %s\n", $$1, $$2}'

setup:  ## make .venv with what helmsman needs (no torch)
	@bash scripts/setup.sh base

setup-test:  ## and with what the tests and the training need
	@bash scripts/setup.sh test

chat: setup  ## start the cluster of this machine and talk to it
	@.venv/bin/helmsman

demo: setup  ## the same on a simulated fleet
	@.venv/bin/helmsman --demo

web: setup  ## the same in a browser
	@.venv/bin/helmsman web

test: setup-test lint types  ## everything that decides: lint, types, all tests (a file's tests one after another, files side by side)
	@$(PYTHON_) -m pytest --numprocesses=auto --maxprocesses=4 --dist=loadfile

quick: setup-test  ## the tests without the slow stories
	@$(PYTHON_) -m pytest -m "not slow"

lint: setup-test
	@.venv/bin/ruff check .
	@.venv/bin/ruff format --check .

types: setup-test
	@.venv/bin/mypy

format: setup-test  ## let ruff put the code in order
	@.venv/bin/ruff check --fix . ; .venv/bin/ruff format .

g: setup-test  ## train the embedded model from nothing and put it into weights/g (G_MINUTES=70)
	@$(PYTHON_) -m finetune.train --out $(G_RUN) --minutes $(G_MINUTES)
	@$(PYTHON_) -m finetune.export $(G_RUN) weights/g
	@$(PYTHON_) -m finetune.prior weights/g

lock: setup-test  ## write requirements/*.txt anew from what is installed
	@bash scripts/lock.sh

nightly: test  ## all tests three times over, 200 times kill -9, long runs of API, uploads, rolling updates
	@for seed in 1 2 3; do $(PYTHON_) -m pytest --hypothesis-seed=$$seed || exit 1; done
	@$(PYTHON_) -m evals.chaos --kills 200 --seed $(CHAOS_SEED)
	@if $(PYTHON_) -m cluster.db.temporary; then $(PYTHON_) -m evals.chaos --kills 50 --postgres --seed $(CHAOS_SEED); fi
	@HELMSMAN_API_EXAMPLES=50 $(PYTHON_) -m pytest tests/cluster/test_api_schema.py
	@$(PYTHON_) -m evals.benchmarks upload
	@$(PYTHON_) -m evals.benchmarks rolling

clean:  ## remove .venv and caches; trained runs in .build stay
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis build *.egg-info
	find . -name __pycache__ -not -path './.git/*' -prune -exec rm -rf {} +
