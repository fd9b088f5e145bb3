# From nothing to a trained net with `make run`, and to passed tests with `make test`.
# Only Python 3.10 or later with venv, make and a package index are needed.

PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin

# `make run DATA=/data/imagenet` takes real photos instead of made ones, and the recipe's own epochs.
DATA   ?=
ifeq ($(DATA),)
PHOTOS := demo/photos
SHARDS := demo/shards
RUN    := demo/run
# The first 9 of 91 epochs of 2012, on 1,000 made photos: about two minutes on two CPU cores.
TRAIN  ?= --batch-size 32 --steps 279
else
PHOTOS := $(DATA)
SHARDS ?= out
RUN    ?= runs/source2012
TRAIN  ?=
endif

.DEFAULT_GOAL := help
.PHONY: help install run test test-all test-long test-gpu check format docs clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-9s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: $(BIN)/.installed ## make the environment in .venv

$(BIN)/.installed: pyproject.toml $(wildcard pipeline/*.h pipeline/*/_*.c model/nets/*.h model/nets/_*.c)
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 10) <= sys.version_info < (3, 15))' || { echo \
	"error: $(PYTHON) is not Python 3.10 to 3.14; choose one with make PYTHON=python3.12"; exit 2; }
	@echo "making $(VENV); the packages are 6 GB, mostly torch's and DALI's CUDA libraries"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@

run: install ## photos to a trained and tested net; DATA=folder for real photos
	@echo "1/5  photos"
	@test -n "$(DATA)" || $(BIN)/alexnet-prep sample-photos "$(PHOTOS)"
	@echo "2/5  shards"
	@$(BIN)/alexnet-prep build-lmdb "$(PHOTOS)" --out "$(SHARDS)"
	@echo "3/5  statistics"
	@$(BIN)/alexnet-prep pca-stats --shards "$(SHARDS)"
	@echo "4/5  training"
	@$(BIN)/alexnet-train --shards "$(SHARDS)" --run "$(RUN)" $(TRAIN) $$(test ! -e "$(RUN)/last.pt" || echo --resume)
	@echo "5/5  evaluation, ten views"
	@$(BIN)/alexnet-eval "$(RUN)" --views 10 --json "$(RUN)/ten-views.json"
	@echo "photos in $(PHOTOS), shards in $(SHARDS), checkpoints, metrics.jsonl and ten-views.json in $(RUN)"

# Two processes; a file's tests run in one of them, so that its fixtures are made once.
# Threads of two processes that wait for each other on two cores take four times as long as one thread each.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

test: check ## the checks, then the tests of all of the product: 6 to 8 minutes on two cores
	$(PYTEST) -m "not slow"

test-all: install ## the tests that `make test` leaves out: under 45 minutes
	$(PYTEST) -m slow

# What docs/reliability.md says was done, once more.
test-long: install ## thousands of faults, kills and damaged files, then an hour of both: a night
	FAULT_ERRORS=7 FAULT_KILLS=1000 STEADY_BATCHES=5000 STEADY_STREAMS=100 STRANGE_CUTS=200 STRANGE_FLIPS=1000 \
	STRANGERS=2000 $(PYTEST) tests/system
	$(BIN)/python tests/support/damaged_pictures.py --cases 100000 --seed 11
	$(BIN)/python tests/system/soak/training.py --kills 51 --seed 29
	$(BIN)/python tests/system/soak/everything.py --minutes 60 --seed 29

# Photos are made first, then the clock starts. Without a GPU: make test-gpu DEVICE=cpu.
DEVICE ?= cuda
test-gpu: install ## the checks on one GPU: under 8 minutes; gpu-report.json and .md in gpu-report
	$(BIN)/python tests/gpu/run.py --device $(DEVICE) --out gpu-report

check: install ## lint, format and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	@# under the name that is imported: by folder names, types that cross from one package to another go unseen
	@mkdir -p $(VENV)/types && ln -sfn "$(CURDIR)" $(VENV)/types/alexnet_dali
	MYPYPATH=$(VENV)/types $(BIN)/mypy -p alexnet_dali.pipeline -p alexnet_dali.model -p alexnet_dali.tools

format: install ## format the code
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

docs: install ## write docs/cli.md from --help
	$(BIN)/python tests/test_docs.py

clean: ## remove the environment and what `make run` made of sample photos
	rm -rf $(VENV) demo *.egg-info build
