# make study    the default study, set-up included; says where the report is
# make test     the same set-up, then all tests, on two cores; TESTS='-m "not slow"' for those without whole studies
# make lint     formatting, ruff, mypy and snakemake --lint
# make browse   the study in results/, in a browser: its database, for reading
# make bench    docs/BENCHMARKS.md: against a plain script and ART, warm and cold, growing grids (about half an hour)
# make schema   the JSON schema of the configuration, after a change of its classes
#
# CORES=4 limits the cores; PYTHON names the interpreter that .venv is made from.

PYTHON ?= python3
CORES ?= all
VENV := .venv
READY := $(VENV)/.ready
export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)

.PHONY: study browse test lint bench schema setup clean

study: $(READY)
	snakemake --cores $(CORES)
	@echo "The report: $(CURDIR)/results/report.html"

browse: $(READY)
	@python -m pipeline db browse

test: $(READY)
	pytest -n 2 --dist loadfile --no-loadscope-reorder $(TESTS)

lint: $(READY)
	ruff format --check .
	snakefmt --check Snakefile workflow
	ruff check .
	mypy
	snakemake --lint

bench: $(READY)
	python -m benchmarks --measure

schema: $(READY)
	python -m pipeline schema

setup: $(READY)

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed, this is " + sys.version)'
	$(PYTHON) -m venv $(VENV)
	@# Without compat, an import hook would take 10 ms of every job's start.
	pip install --quiet --constraint constraints.txt --config-settings editable_mode=compat --editable ".[dev]"
	@touch $@

clean:
	rm -rf $(VENV)
