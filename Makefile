# The front door of the project: `make help` lists what it can do.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STATE ?= $(CURDIR)/.state
# the demonstration keeps all it writes below .state
HOME_OF_RUN := DATABASE_URL= TASKS=invoices STATE_DIR=$(STATE) RUNTIME_DIR=$(STATE)/run LOG_DIR=$(STATE)/log
CTL := $(HOME_OF_RUN) $(BIN)/workerctl

# Each command and daemon is a process of its own: what they import is compiled once.
COMPILE = $(BIN)/python -m compileall -q daemon ops
export PYTHONDONTWRITEBYTECODE :=

.DEFAULT_GOAL := help
.PHONY: help install install-dev run status logs ctl stop test test-long test-times faults system soak soak-handlers test-server check docs reference format samples picture definitions release bench-latency bench-manager constraints clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{ printf "  make %-15s %s\n", $$1, $$2 }'

install: $(VENV)/installed ## make .venv with workerd, the invoice assistant and an embedded PostgreSQL

install-dev: $(VENV)/installed-dev ## the same, with what tests and checks need

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed: make PYTHON=python3.12 …" >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { echo "python3 -m venv does not work here: apt install python3-venv" >&2; exit 1; }

$(VENV)/installed: pyproject.toml constraints.txt | $(BIN)/python
	@echo "installing into $(VENV) …"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[embedded,invoices]'
	@$(COMPILE)
	@touch $@

$(VENV)/installed-dev: pyproject.toml constraints.txt | $(BIN)/python
	@echo "installing into $(VENV) …"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	@$(COMPILE)
	@$(BIN)/python -m pytest --collect-only -qq > /dev/null # which compiles the tests, once and not in each process
	@touch $@ $(VENV)/installed

run: $(VENV)/installed ## start 4 workers on an embedded PostgreSQL and read the sample mailbox
	@$(HOME_OF_RUN) $(BIN)/python -m invoices
	@echo "Look further: make status · make logs · make ctl DO='jobs list' · make ctl DO=stats"
	@echo "Stop the daemon and its database: make stop"

status: ## what the daemon of `make run` does
	@$(CTL) status

logs: ## the end of its log
	@$(CTL) logs --lines 50

ctl: ## any other command on it: make ctl DO='jobs show 3'
	@$(CTL) $(DO)

stop: ## stop the daemon of `make run` and its database
	@$(CTL) stop

# more test processes than cores, since most tests wait at times; one that has nothing left takes tests of another
PROCESSES ?= $(shell expr 2 \* $$(nproc))
PYTEST = $(BIN)/python -m pytest --numprocesses $(PROCESSES) --maxprocesses 8 --dist worksteal

test: $(VENV)/installed-dev ## unit and integration tests and those of the queue's protocol, on an embedded PostgreSQL of their own
	@$(PYTEST)

test-long: $(VENV)/installed-dev ## the long forms: state machines, the attack with all mutants, fuzzes, full tables
	@$(PYTEST) --dist loadfile -m long

test-times: $(VENV)/installed-dev ## make test, and what it costs: the slowest files, fixtures and tests
	@$(PYTEST) -p tests.times

FAULTS := tests/faults

faults: $(VENV)/installed-dev ## daemons that are killed, frozen, cut off, reloaded: nothing may be lost or end twice
	@$(PYTEST) $(FAULTS)

MINUTES ?= 15

soak: $(VENV)/installed-dev ## an even load with reloads and restarts of the database: nothing grows, nothing is lost; MINUTES=15
	@SOAK_MINUTES=$(MINUTES) $(BIN)/python -m pytest -q -s tests/soak

soak-handlers: $(VENV)/installed-dev ## handlers that fork, exit, cancel themselves, block and log wildly: no worker and no line is lost; MINUTES=5
	@SOAK_MINUTES=$(if $(filter file,$(origin MINUTES)),5,$(MINUTES)) $(BIN)/python -m pytest -q -s tests/faults/test_rude_handlers.py

SYSTEM := tests/system

system: $(VENV)/installed-dev ## the real Docker and systemd; skipped where they cannot be had
	@$(PYTEST) --dist loadfile --no-loadscope-reorder $(SYSTEM)

# what depends on the server's version: the queue's functions, their plans, the schema
SQL_TESTS := tests/protocol/test_state_machine.py tests/protocol/test_holes.py tests/integration/test_plans.py tests/integration/test_schema.py \
	tests/integration/test_migrations.py tests/integration/test_jobs.py tests/integration/test_sql.py tests/integration/test_definitions.py

test-server: $(VENV)/installed-dev ## the tests of the queue on another PostgreSQL: make test-server PROGRAMS=/usr/lib/postgresql/15/bin
	@$(PROGRAMS)/postgres --version
	@WORKERD_TEST_PROGRAMS=$(PROGRAMS) $(BIN)/python -m pytest $(SQL_TESTS)

check: $(VENV)/installed-dev ## formatting, lint, types (strict), direction of imports
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-cache

docs: $(VENV)/installed-dev ## the documentation as a site, below build/site; a link that leads nowhere is an error
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict --config-file docs/site/mkdocs.yml
	@echo "build/site/index.html"

reference: $(VENV)/installed-dev ## write docs/reference anew, from settings, commands, metrics, routes, SQL and states
	@REFERENCE=write $(BIN)/python -m pytest --quiet tests/integration/test_reference.py

format: $(VENV)/installed-dev ## format the code and repair what the linter can
	@$(BIN)/ruff format . && $(BIN)/ruff check --fix .

samples: $(VENV)/installed-dev ## make the sample mailbox anew
	@$(BIN)/python -m invoices.samples.make

picture: $(VENV)/installed-dev ## make docs/run.svg and docs/page.png, terminal and page as the README shows them, anew
	@$(BIN)/python tests/system/terminal_picture.py
	@$(BIN)/python tests/system/browser/picture.py

release: $(VENV)/installed-dev ## wheel, sdist, bill of materials and checksums in dist/, tried where there is no compiler
	@.ci/release $(BIN)/python

definitions: $(VENV)/installed-dev ## write down what the migrations make, with which `workerctl doctor` compares a database
	@$(BIN)/python -m tests.definitions

bench-latency: $(VENV)/installed-dev ## how soon an idle daemon starts a job, and what it costs while idle
	@$(BIN)/python tests/bench/latency.py

bench-manager: $(VENV)/installed-dev ## how soon the manager answers with a million jobs in the database
	@$(BIN)/python tests/bench/manager.py

constraints: ## write the versions that are installed into constraints.txt
	@$(BIN)/python -m pip freeze --exclude-editable | grep -v '^-e' > constraints.txt

clean: ## remove .venv and all caches; `make stop` first
	@rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
	@find . -name __pycache__ -prune -exec rm -rf {} +
