# Needs Python 3.11 or newer and nothing else; every target makes .venv by itself.
ifeq ($(OS),Windows_NT)
PYTHON ?= python
BIN := .venv/Scripts
else
PYTHON ?= python3
BIN := .venv/bin
endif

INSTALLED := .venv/installed
INSTALLED_DOCS := .venv/installed-docs

.PHONY: demo test test-long lint docs clean

demo: $(INSTALLED)
	$(BIN)/vidrestore demo demo

# One process per core: more threads than that would only wait for each other.
test test-long: export OMP_NUM_THREADS := 1

test: $(INSTALLED)
	$(BIN)/python -m pytest -n auto --dist worksteal

test-long: $(INSTALLED)
	$(BIN)/python -m pytest -m long -n auto --dist worksteal

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# Writes the generated pages, then the site, into site/. Links that lead nowhere are errors.
docs: $(INSTALLED_DOCS)
	$(BIN)/python docs/make_settings.py
	$(BIN)/python docs/make_commands.py
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build

$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --upgrade pip
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable . --group dev
	$(BIN)/python -c "open('$(INSTALLED)', 'w').close()"

$(INSTALLED_DOCS): $(INSTALLED)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --group docs
	$(BIN)/python -c "open('$(INSTALLED_DOCS)', 'w').close()"

clean:
	$(PYTHON) -c "import shutil; [shutil.rmtree(d, True) for d in ('.venv', 'demo', 'dist', 'site', '.mypy_cache', '.ruff_cache', '.pytest_cache')]"
