# Everything a user or a contributor types. Without make: the commands are plain, read them here.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
# Two test processes share the cores: threads of PyTorch that wait must not spin.
PYTEST = OMP_WAIT_POLICY=passive $(BIN)/python -m pytest -n 2 --dist loadfile
PIP = $(BIN)/pip --disable-pip-version-check --quiet
# The weights' folder and the scripts are used in place, so the project is installed as editable.
PROJECT = $(PIP) install --no-deps --editable .

.PHONY: help serve train test check lint types format lock browser container clean

help:  ## list the targets
	@sed -nE 's/^([a-z]+):.*## (.*)/make \1	\2/p' $(MAKEFILE_LIST) | expand -t 18

serve: $(VENV)/serve.stamp  ## start the service on 127.0.0.1:8000; installs what it needs (230 MB) the first time
	$(BIN)/python -m app

train: $(VENV)/dev.stamp  ## train with the recipe baseline; ARGS="--epochs 4 ..." for anything else
	$(BIN)/python scripts/train.py $(ARGS)

test: $(VENV)/dev.stamp  ## the fast tests, in two processes
	$(PYTEST) -m "not slow"

check: lint types  ## what CI runs: lint, types, every test with coverage, warnings as errors
	$(PYTEST) --durations 20 --cov --cov-report=term

lint: $(VENV)/dev.stamp  ## ruff
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: $(VENV)/dev.stamp  ## mypy
	$(BIN)/mypy

format: $(VENV)/dev.stamp  ## let ruff format and fix
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

lock:  ## pin what pyproject.toml asks for, with hashes (needs uv)
	uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-strip-extras --no-emit-index-url --no-annotate \
	  --no-header pyproject.toml -o requirements/serve.txt
	uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-strip-extras --no-emit-index-url --no-annotate \
	  --no-header pyproject.toml --extra dev -c requirements/serve.txt -o requirements/dev.txt

browser:  ## Chromium and axe-core, which the tests of the page drive and ask; without them they are skipped
	(command -v chromium && command -v chromedriver) >/dev/null || (apt-get update -qq && apt-get install -y -qq chromium chromium-driver)
	npm install --no-save --no-package-lock --no-audit --no-fund --silent axe-core@4.14.1

container:  ## podman and mmdebstrap (Debian, as root), by which a test builds and runs the image; without them it is skipped
	(for program in podman runc iptables mmdebstrap; do command -v $$program >/dev/null || exit 1; done) || \
	  (apt-get update -qq && apt-get install -y -qq --no-install-recommends podman runc iptables mmdebstrap netavark)

clean:  ## remove what the other targets made here
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .coverage

$(VENV)/serve.stamp: requirements/serve.txt pyproject.toml
	@echo "Installing the service; this takes about a minute the first time."
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) install --require-hashes -r requirements/serve.txt
	$(PROJECT)
	touch $@

$(VENV)/dev.stamp: requirements/dev.txt pyproject.toml
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "Installing PyTorch and the development tools (6 GB); this takes some minutes the first time."
	$(PIP) install --require-hashes -r requirements/dev.txt
	$(PROJECT)
	touch $@ $(VENV)/serve.stamp
