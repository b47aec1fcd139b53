# Two commands on a fresh machine: `make demo` and `make test`. Each makes its own virtual environment.
PYTHON ?= python3
BIN = .venv/bin

.PHONY: demo test test-fast lint docs pages clean

demo: .venv/demo.installed
	$(BIN)/minitl compare --plots demo

test: .venv/test.installed
	$(BIN)/python -m pytest -n 2 --dist worksteal

# What needs least processor time and touches most (about 100 s of it, on two cores less than a minute, once kernels are
# compiled): a list of folders, for the time of a test is not known before it runs.
FAST = $(wildcard tests/test_*.py) $(addprefix tests/,accounting/test_bytes_agree.py data devices reproduce sides tape)

test-fast: .venv/test.installed
	$(BIN)/python -m pytest -n 2 $(FAST)

lint: .venv/lint.installed
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/mypy --config-file tests/mypy.ini

# The API reference, from the docstrings: docs/index.html.
docs: .venv/docs.installed
	$(BIN)/pdoc --output-directory docs minitl $(addprefix minitl.,data devices errors export layers oracle training)

# The tutorials' pages and figures, made by running them.
pages: .venv/demo.installed
	$(BIN)/python tutorials/render.py
	$(BIN)/python tutorials/overview.py

# One stamp an extra: installing again happens only when pyproject.toml changes.
.venv/%.installed: pyproject.toml | .venv/bin/python
	@echo "installing minitl[$*] into .venv (about a minute) ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[$*]'
	@touch $@

.venv/bin/python:
	$(PYTHON) -m venv .venv

clean:
	rm -rf .venv demo docs
