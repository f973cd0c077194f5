# make lab    the course in JupyterLab          make demo   the same job in a terminal
# make model  the model of the course, trained from nothing
# make check  the quick half of the tests       make test   everything that must hold
# make docs   the site, in _docs/               make readme README.md, from nbs/index.ipynb
# make report what each lesson has and lacks    make bench  how fast it is, next to others
# make coverage  which lines the tests run, in test-artifacts/coverage     make fuzz  ten times as many damaged inputs

SHELL := /bin/bash
PYTHON ?= python3
BIN := .venv/bin
export PATH := $(CURDIR)/$(BIN):$(PATH)
# Threads that wait for long leave the cores to those that compute (the command line's page in the workshop).
export GOMP_SPINCOUNT := 1000

.PHONY: lab demo model check test fuzz coverage docs readme report bench clean
.DELETE_ON_ERROR:

lab: $(BIN)/.course
	$(BIN)/python docs/lab.py

demo: $(BIN)/.package
	$(BIN)/geminiq demo $(if $(filter 0,$(CHAT)),--no-chat)

# The model of the course, from nothing, in two parts: on conversations as they come, then on the longer of two. Goes on where
# it was stopped. Its report lies beside its weights. Threads that wait actively are faster where nothing else runs.
model: export GOMP_SPINCOUNT := 100000
model: $(BIN)/.package
	$(BIN)/geminiq train --output runs/microworld $(if $(wildcard runs/microworld/step-*),--resume,--config microworld)
	$(BIN)/geminiq train --output runs/microworld-2 $(if $(wildcard runs/microworld-2/step-*),--resume,--config microworld \
		--init_from runs/microworld --seed 1 --max_steps 6500 --set data.longest_of=2)
	$(BIN)/python docs/ship_model.py runs/microworld runs/microworld-2 geminiq/weights/microworld

# Each environment is the pinned set of constraints.txt plus this folder's package, and holds the ones before it.
$(BIN)/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and f"geminiq needs Python 3.11 or newer, this is {sys.version.split()[0]}: make PYTHON=python3.12 …")'
	@echo "Making an environment in .venv; the first time, some minutes to fetch PyTorch and the rest …"
	$(PYTHON) -m venv .venv

# pip says what it is doing, line by line: the first time takes minutes.
INSTALL := PYTHONWARNINGS=ignore $(BIN)/python -m pip install $(if $(CI),--quiet) --constraint constraints.txt --editable

$(BIN)/.package: settings.ini setup.py constraints.txt | $(BIN)/python
	$(INSTALL) .
	touch $@

$(BIN)/.course: $(BIN)/.package
	$(INSTALL) '.[course]'
	touch $@

$(BIN)/.dev: $(BIN)/.course
	$(INSTALL) '.[dev]'
	touch $@

# In two minutes: style, types, the package against the notebooks, and the tests that are not marked slow.
check: $(BIN)/.dev
	$(BIN)/ruff check
	$(BIN)/mypy
	$(BIN)/python docs/readme.py --check
	$(BIN)/python docs/references.py --check
	$(BIN)/python -m pytest tests -m "not slow" -n 2 --dist loadscope

# Everything that must hold, the quick checks first.
test: $(BIN)/.dev
	$(BIN)/ruff check
	$(BIN)/mypy
	$(BIN)/python docs/families.py --check
	$(BIN)/python docs/readme.py --check
	$(BIN)/python docs/references.py --check
	$(BIN)/python docs/build_site.py
	$(BIN)/python tests/site/browser.py
	$(BIN)/python -m pytest tests -n 2 --dist loadscope

# Thousands of damaged inputs, where `make test` tries hundreds; FUZZ=100 for more.
fuzz: $(BIN)/.dev
	GEMINIQ_FUZZ=$(or $(FUZZ),10) $(BIN)/python -m pytest tests/fuzz -n 2

# Of tests/ without notebooks and browsers, which run in processes of their own.
coverage: $(BIN)/.dev
	$(BIN)/python -m pytest tests --ignore tests/site --ignore tests/test_notebooks.py --ignore tests/test_package.py \
		-n 2 --dist loadscope --cov geminiq --cov-report term:skip-covered --cov-report html:test-artifacts/coverage

docs: $(BIN)/.dev
	$(BIN)/python docs/build_site.py

readme: $(BIN)/.dev
	$(BIN)/python docs/readme.py

report: $(BIN)/.dev
	$(BIN)/python docs/report.py --run

bench: $(BIN)/.dev
	$(BIN)/python benchmarks/results.py

clean:
	rm -rf build dist _docs _proc *.egg-info test-artifacts docs/_static/vendor nbs/nbdev.yml nbs/sidebar.yml .mypy_cache .coverage*
