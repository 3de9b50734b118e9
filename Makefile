# Every target works from a fresh clone: the environment in .venv is made, and renewed when its inputs change.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

.PHONY: install check test test-isa test-cluster chaos soak quickstart bench clean

install: $(INSTALLED)

$(INSTALLED): setup.py pyproject.toml constraints.txt $(wildcard amago_ray/nets/native/*.[ch])
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "amago_ray needs Python 3.11 or newer; set PYTHON=...")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $@

check: $(INSTALLED)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

test: $(INSTALLED)
	$(BIN)/python -m pytest -m "not cluster and not gpu"

# The numeric tests on every instruction set that this CPU can imitate, in some ten minutes.
test-isa: $(INSTALLED)
	$(BIN)/python tests/isa.py

# Several nodes on this machine, whose processes, hosts and disks fail, in less than half an hour.
test-cluster: $(INSTALLED)
	$(BIN)/python -m pytest -m cluster

# Ten minutes of training under a killer; and half an hour in which nothing may grow.
chaos: $(INSTALLED)
	$(BIN)/python tests/cluster/chaos.py

soak: $(INSTALLED)
	$(BIN)/python tests/cluster/soak.py

quickstart: $(INSTALLED)
	$(BIN)/amago-ray train quickstart --overwrite

bench: $(INSTALLED)
	$(BIN)/python benchmarks/versus_amago.py --quick --suite acting learning

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
