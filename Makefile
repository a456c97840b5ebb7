# make demo | test | verify | fix | bench | bench-disk | bench-checkpoints | clean.
# Needs Python >= 3.11 and nothing else.
VENV ?= .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

.PHONY: demo test verify fix bench bench-disk bench-checkpoints clean

demo: $(INSTALLED)
	$(BIN)/pbft demo

test: $(INSTALLED)
	$(BIN)/pytest -n auto --dist worksteal

verify: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

fix: $(INSTALLED)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(INSTALLED)
	$(BIN)/python benchmarks/run.py

bench-disk: $(INSTALLED)
	$(BIN)/python benchmarks/disk_size.py

bench-checkpoints: $(INSTALLED)
	$(BIN)/python benchmarks/checkpoint_cost.py

clean:
	rm -rf $(VENV) dist .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis .coverage
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(INSTALLED): pyproject.toml
	@for python in python3.11 python3.12 python3.13 python3.14 python3 python; do \
		if $$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then break; fi; \
		python=; \
	done; \
	if [ -z "$$python" ]; then \
		echo "make: Python 3.11 or newer is needed, and none was found in PATH" >&2; exit 1; \
	fi; \
	if ! $$python -m venv $(VENV); then \
		echo "make: $$python cannot make a virtual environment: install its venv module" \
			"(python3-venv on Debian and Ubuntu)" >&2; exit 1; \
	fi
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@
