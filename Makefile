# Everything a user or a contributor types. Without make: the commands are plain, read them here.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
PIP = $(BIN)/pip --disable-pip-version-check --quiet
# The weights' folder and the scripts are used in place, so the project is installed as editable.
PROJECT = $(PIP) install --no-deps --editable .

.PHONY: serve train test check lint types format lock browser clean

serve: $(VENV)/serve.stamp  ## start the service on 127.0.0.1:8000, with the serving dependencies only
	$(BIN)/python -m app

train: $(VENV)/dev.stamp  ## train with the seed recipe; ARGS="--epochs 4 ..." for anything else
	$(BIN)/python scripts/train.py $(ARGS)

test: $(VENV)/dev.stamp  ## every test
	$(BIN)/python -m pytest

check: lint types  ## what CI runs: lint, types, tests with coverage, warnings as errors
	$(BIN)/python -m pytest --cov --cov-report=term

lint: $(VENV)/dev.stamp
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: $(VENV)/dev.stamp
	$(BIN)/mypy

format: $(VENV)/dev.stamp
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

lock:  ## pin what pyproject.toml asks for, with hashes (needs uv)
	uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-strip-extras --no-emit-index-url --no-annotate \
	  --no-header pyproject.toml -o requirements/serve.txt
	uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-strip-extras --no-emit-index-url --no-annotate \
	  --no-header pyproject.toml --extra dev -c requirements/serve.txt -o requirements/dev.txt

browser:  ## Chromium and axe-core, which the tests of the page drive and ask; without them they are skipped
	command -v chromium chromedriver >/dev/null || (apt-get update -qq && apt-get install -y -qq chromium chromium-driver)
	npm install --no-save --no-package-lock --no-audit --no-fund --silent axe-core@4.14.1

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .coverage

$(VENV)/serve.stamp: requirements/serve.txt pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) install --require-hashes -r requirements/serve.txt
	$(PROJECT)
	touch $@

$(VENV)/dev.stamp: requirements/dev.txt pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "Installing PyTorch and the development tools; this takes some minutes the first time."
	$(PIP) install --require-hashes -r requirements/dev.txt
	$(PROJECT)
	touch $@ $(VENV)/serve.stamp
