# make lab    the course in JupyterLab          make demo   the same job in a terminal
# make test   everything that must hold         make docs   the site, in _docs/
# make report what each lesson has and lacks    make bench  how fast it is, next to others

SHELL := /bin/bash
PYTHON ?= python3
BIN := .venv/bin
export PATH := $(CURDIR)/$(BIN):$(PATH)
# Threads that wait for long leave the cores to those that compute (the command line's page in the workshop).
export GOMP_SPINCOUNT := 1000

.PHONY: lab demo test docs readme report bench clean
.DELETE_ON_ERROR:

lab: $(BIN)/.course
	$(BIN)/python docs/lab.py

demo: $(BIN)/.package
	$(BIN)/geminiq demo $(if $(filter 0,$(CHAT)),--no-chat)

# Each environment is the pinned set of constraints.txt plus this folder's package, and holds the ones before it.
$(BIN)/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and f"geminiq needs Python 3.11 or newer, this is {sys.version.split()[0]}: make PYTHON=python3.12 …")'
	$(PYTHON) -m venv .venv

INSTALL := PYTHONWARNINGS=ignore $(BIN)/python -m pip install --quiet --constraint constraints.txt --editable

$(BIN)/.package: settings.ini setup.py constraints.txt | $(BIN)/python
	$(INSTALL) .
	touch $@

$(BIN)/.course: $(BIN)/.package
	$(INSTALL) '.[course]'
	touch $@

$(BIN)/.dev: $(BIN)/.course
	$(INSTALL) '.[dev]'
	touch $@

# Everything that must hold, the quick checks first.
test: $(BIN)/.dev
	$(BIN)/ruff check
	$(BIN)/python docs/families.py --check
	$(BIN)/python docs/readme.py --check
	$(BIN)/python docs/build_site.py --sphinx
	$(BIN)/python tests/site/browser.py
	$(BIN)/python -m pytest tests -n 2 --dist loadscope

docs: $(BIN)/.dev
	$(BIN)/python docs/build_site.py $(DOCS_FLAGS)

readme: $(BIN)/.dev
	$(BIN)/python docs/readme.py

report: $(BIN)/.dev
	$(BIN)/python docs/report.py --run

bench: $(BIN)/.dev
	$(BIN)/python benchmarks/results.py

clean:
	rm -rf build dist _docs _proc *.egg-info test-artifacts docs/_static/vendor nbs/mathjax
