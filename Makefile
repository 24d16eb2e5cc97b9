# make demo       install the pinned requirements, train from scratch and from the model that ships, print the results
# make test       lint, types and all tests that take seconds
# make test-slow  the tests that take minutes
# make lint       ruff and mypy alone
# make clean      remove .venv and caches; data/ and models/ are kept

PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test test-slow lint clean

demo: .venv/.installed
	@$(BIN)/python -m pipeline run --recipe sample-word
	@$(BIN)/python -m pipeline run --recipe sample
	@$(BIN)/python -m pipeline results sample-word sample

test: lint
	@$(BIN)/python -m pytest -m "not slow"

test-slow: .venv/.installed
	@$(BIN)/python -m pytest -m slow

lint: .venv/.installed
	@$(BIN)/ruff check .
	@$(BIN)/mypy

clean:
	rm -rf .venv .mypy_cache .pytest_cache .ruff_cache .hypothesis build dist *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# The stamp is written last: an installation that was cut off is done again.
.venv/.installed: pyproject.toml constraints.txt
	@echo "installing the pinned requirements into .venv: a few minutes and 6 GB the first time"
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt -e '.[test]'
	@touch $@
