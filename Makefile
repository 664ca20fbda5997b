# Everything a user or a contributor types. Without make: the commands are plain, read them here.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
# Two test processes share the cores: threads of PyTorch that wait must not spin.
PYTEST = OMP_WAIT_POLICY=passive $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder
# Not --quiet: pip shows what it downloads, which takes minutes with PyTorch.
PIP = $(BIN)/pip --disable-pip-version-check
# The weights' folder and the scripts are used in place, so the project is installed as editable.
PROJECT = $(PIP) --quiet install --no-deps --editable .

.PHONY: help serve train test check coverage lint types format lock browser container clean

help:  ## lists the targets
	@sed -nE 's/^([a-z]+):.*## (.*)/make \1	\2/p' $(MAKEFILE_LIST) | expand -t 18

serve: $(VENV)/serve.stamp  ## starts the service on 127.0.0.1:8000 (the first time it installs 230 MB)
	$(BIN)/python -m app

train: $(VENV)/train.stamp  ## trains FashionNet (the first time it installs PyTorch, 6 GB); ARGS="--epochs 4" adds flags
	$(BIN)/python scripts/train.py $(ARGS)

test: $(VENV)/dev.stamp  ## runs the fast tests (the first time it installs PyTorch and the development tools, 6 GB)
	$(PYTEST) -m "not (slow or weights or ray or browser)"

check: lint types  ## runs what the CI job check runs: lint, types, and all tests
	$(PYTEST) --durations 20

coverage: $(VENV)/dev.stamp  ## runs all tests and fails if they reach less than 95 % of the code; takes a fifth longer
	$(PYTEST) --cov --cov-report=term

lint: $(VENV)/dev.stamp  ## checks format and style with ruff
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: $(VENV)/dev.stamp  ## checks types with mypy
	$(BIN)/mypy

format: $(VENV)/dev.stamp  ## formats the code and fixes what ruff can fix
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

lock:  ## pins the packages of pyproject.toml in requirements/, with hashes (needs uv)
	uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-strip-extras --no-emit-index-url --no-annotate \
	  --no-header pyproject.toml -o requirements/serve.txt
	uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-strip-extras --no-emit-index-url --no-annotate \
	  --no-header pyproject.toml --extra heic --extra grpc -c requirements/serve.txt -o requirements/image.txt
	uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-strip-extras --no-emit-index-url --no-annotate \
	  --no-header pyproject.toml --extra dev -c requirements/serve.txt -o requirements/dev.txt
	uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-strip-extras --no-emit-index-url --no-annotate \
	  --no-header pyproject.toml --extra train -c requirements/dev.txt -o requirements/train.txt

browser:  ## installs Chromium and axe-core, for the tests of the page (Debian, as root, with npm)
	(command -v chromium && command -v chromedriver) >/dev/null || (apt-get update -qq && apt-get install -y -qq chromium chromium-driver)
	npm install --no-save --no-package-lock --no-audit --no-fund --silent axe-core@4.14.1

container:  ## installs podman and mmdebstrap, for the tests of the image (Debian, as root)
	(for program in podman runc iptables mmdebstrap; do command -v $$program >/dev/null || exit 1; done) || \
	  (apt-get update -qq && apt-get install -y -qq --no-install-recommends podman runc iptables mmdebstrap netavark)

clean:  ## removes .venv and the caches
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .coverage

$(VENV)/serve.stamp: requirements/serve.txt pyproject.toml
	@echo "Installing the service (230 MB); this takes about a minute."
	@test -x $(BIN)/pip || $(PYTHON) -m venv $(VENV)
	$(PIP) install --require-hashes -r requirements/serve.txt
	$(PROJECT)
	touch $@

$(VENV)/train.stamp: requirements/train.txt pyproject.toml
	@test -x $(BIN)/pip || $(PYTHON) -m venv $(VENV)
	@echo "Installing the service and PyTorch (6 GB); this takes some minutes."
	$(PIP) install --require-hashes -r requirements/train.txt
	$(PROJECT)
	touch $@ $(VENV)/serve.stamp

$(VENV)/dev.stamp: requirements/dev.txt pyproject.toml
	@test -x $(BIN)/pip || $(PYTHON) -m venv $(VENV)
	@echo "Installing PyTorch and the development tools (6 GB); this takes some minutes."
	$(PIP) install --require-hashes -r requirements/dev.txt
	$(PROJECT)
	touch $@ $(VENV)/train.stamp $(VENV)/serve.stamp
