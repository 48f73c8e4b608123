# make demo    Deep Image Prior on a built-in photograph; results under runs/dip/
# make test    the tests
# make lint    style and types
# make fuzz    200 mangled images, weights and checkpoints: a clear line each, or a right result
# make soak    a run over a folder, killed 50 times: nothing lost, nothing done twice (under 40 minutes)
# make clean   removes .venv, caches and build outputs (never runs/)
#
# Needs nothing but make and Python 3.11 or later (with its venv, Debian's python3-venv): make PYTHON=/path/to/python3 chooses which.

.DELETE_ON_ERROR:
.PHONY: demo test lint fuzz soak clean

MODERN := import sys; sys.exit(sys.version_info < (3, 11))
PYTHON ?= $(firstword $(foreach python,python3 python3.14 python3.13 python3.12 python3.11,\
	$(shell $(python) -c '$(MODERN)' 2>/dev/null && echo $(python))))
PIP := .venv/bin/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

demo: .venv/installed
	.venv/bin/python -m experiments.dip --loss charbonnier

test: .venv/installed-dev
	.venv/bin/python -m pytest -q -n auto --maxprocesses 4 --dist worksteal

lint: .venv/installed-dev
	.venv/bin/python -m ruff check .
	.venv/bin/python -m ruff format --check .
	.venv/bin/python -m mypy jaxsr experiments benchmarks

fuzz: .venv/installed-dev
	.venv/bin/python -W ignore -m tests.fuzz --count 200

soak: .venv/installed-dev
	.venv/bin/python -m tests.soak --kills 50

clean:
	rm -rf .venv build dist *.egg-info .hypothesis .pytest_cache .mypy_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

.venv/made: pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "no Python 3.11 or later found: make PYTHON=/path/to/python3" >&2; exit 1; }
	@$(PYTHON) -c '$(MODERN)' || { echo "PYTHON (=$(PYTHON)) must be Python 3.11 or later" >&2; exit 1; }
	@echo "installing into .venv (a few minutes the first time)"
	@$(PYTHON) -m venv --clear .venv
	@touch $@

.venv/installed: .venv/made
	@$(PIP) --editable .
	@touch $@

# Bytecode is left to the first import: most of what is installed here is never imported.
.venv/installed-dev: .venv/made
	@$(PIP) --no-compile --editable '.[dev]'
	@touch .venv/installed $@
