# make quickstart   set up .venv and run the main job (3 to 8 minutes on 2 cores)
# make test         run the tests
# make test-levels  run the batch-invariance tests at every CPU level that this machine supports
# make sandbox      install bubblewrap, in which the `code` reward runs programs (Debian-like; as root or with sudo)
# make lint         check style, formatting, import rules and types
# make docs         regenerate docs/configuration.md from the config classes
# make lock         update the lock file to the newest versions that pyproject.toml allows
# make test-latest  run the quick tests in .venv-latest with the newest versions; lists differences
# make clean        remove caches and build leftovers (never .venv or runs/)
#
# Requires only Python >= 3.11 and make. `make quickstart PYTHON=/path/to/python3.12` chooses the interpreter.

VENV := .venv
BIN := $(VENV)/bin
# Written last, so .venv is complete if and only if they exist. They contain the folder they were made in, because a
# virtual environment cannot be moved.
READY := $(VENV)/.ready
READY_DEV := $(VENV)/.ready-dev
NEW_ENOUGH := -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))'
CANDIDATES := $(or $(PYTHON),python3.13 python3.12 python3.11 python3)

# Constraints, not requirements: packages that nothing requires, such as CUDA libraries with a CPU build of torch,
# are not installed.
LOCK := ouro_rl/core/requirements.lock
UV := uv==0.13.9
# The public version, shared by CPU and CUDA builds. `make test-latest TORCH=torch` takes the newest one.
TORCH := torch==2.13.0
LATEST := .venv-latest
# The tests that notice changes in libraries; they run before two updates of the main job and take a few minutes.
QUICK := tests/ouro_rl/core/test_lock.py tests/ouro_rl/training/test_trl_seams.py tests/ouro_rl/model tests/ouro_rl/data \
	tests/ouro_rl/config/test_loader.py tests/rewards/math_grader/test_grading.py

define choose_python
for candidate in $(CANDIDATES); do \
	if $$candidate $(NEW_ENOUGH) >/dev/null 2>&1; then python=$$candidate; break; fi; \
done; \
if [ -z "$$python" ]; then \
	echo "No Python >= 3.11 with venv among: $(CANDIDATES)." >&2; \
	echo "Install one (on Debian: python3 python3-venv), or name one: make $(MAKECMDGOALS) PYTHON=/path/to/python3" >&2; \
	exit 1; \
fi
endef

# A .venv that was moved or whose interpreter is missing counts as incomplete.
$(shell [ "$$(cat $(READY) 2>/dev/null)" = "$(CURDIR)" ] && $(BIN)/python -c '' 2>/dev/null || rm -f $(READY) $(READY_DEV))

.PHONY: help quickstart test test-levels test-latest sandbox lint docs lock clean
help:
	@sed -n 's/^# make/make/p' Makefile

quickstart: $(READY)
	CUDA_VISIBLE_DEVICES= $(BIN)/python -m ouro_rl train configs/quickstart.yaml  # made for two CPU cores
	@echo "Report: $(CURDIR)/$$(ls -t runs/quickstart*/report.html | head -n 1)"

test: $(READY_DEV)
	$(BIN)/python -m pytest -n 2 --dist loadfile  # two processes, since many tests wait; tests of a file share fixtures

test-levels: $(READY_DEV)
	$(BIN)/python -m pytest -m slow tests/ouro_rl/kernels/test_levels.py

sandbox:
	@if command -v bwrap >/dev/null; then echo "Already installed: $$(bwrap --version)"; exit 0; fi; \
	if ! command -v apt-get >/dev/null; then \
		echo "Install bubblewrap with your package manager (dnf, pacman, zypper ... install bubblewrap)." >&2; exit 1; \
	fi; \
	if [ "$$(id -u)" = 0 ]; then root=; elif command -v sudo >/dev/null; then root=sudo; else \
		echo "Ask an administrator to run: apt-get install bubblewrap" >&2; exit 1; \
	fi; \
	export DEBIAN_FRONTEND=noninteractive; \
	$$root apt-get install --yes --no-install-recommends bubblewrap || \
		{ $$root apt-get update && $$root apt-get install --yes --no-install-recommends bubblewrap; } || \
		{ echo "bubblewrap could not be installed: see above." >&2; exit 1; }

lint: $(READY_DEV)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/mypy

docs: $(READY)
	$(BIN)/python -m ouro_rl.config.reference > docs/configuration.md

lock:
	@$(choose_python); set -e; tools=$$(mktemp -d); trap 'rm -rf "$$tools"' EXIT; \
	$$python -m venv "$$tools"; "$$tools/bin/python" -m pip install --disable-pip-version-check --quiet '$(UV)'; \
	"$$tools/bin/python" .ci/requirements.py build '$(TORCH)' > "$$tools/more.in"; \
	"$$tools/bin/uv" pip compile --quiet --universal --python-version 3.11 --upgrade --extra dev --no-header --no-annotate \
		--output-file "$$tools/lock.txt" pyproject.toml "$$tools/more.in"; \
	{ echo "# Made by \`make lock\` from pyproject.toml: what is tested together. For pip's --constraint."; \
		cat "$$tools/lock.txt"; } > $(LOCK)
	@echo "$(LOCK): $$(grep -c == $(LOCK)) versions"

# Ignores our upper bounds but not those of other packages: pip takes the newest versions that are compatible.
test-latest:
	@$(choose_python); $$python -m venv --clear $(LATEST)
	$(LATEST)/bin/python .ci/requirements.py newest '$(TORCH)' > $(LATEST)/requirements.txt
	$(LATEST)/bin/python -m pip install --disable-pip-version-check --quiet --requirement $(LATEST)/requirements.txt
	@status=0; $(LATEST)/bin/python -m pytest $(QUICK) || status=1; \
	CUDA_VISIBLE_DEVICES= $(LATEST)/bin/python -m ouro_rl train quickstart trainer.steps=2 eval.source=null \
		run.dir=$(LATEST)/run || status=1; \
	$(LATEST)/bin/python -m ouro_rl.core.lock; exit $$status

clean:
	rm -rf build dist *.egg-info .pytest_cache .ruff_cache .hypothesis .import_linter_cache .mypy_cache
	find . -name __pycache__ -not -path './$(VENV)/*' -not -path './$(LATEST)/*' -prune -exec rm -rf {} +

# pip's build environment would fetch the newest setuptools, so the locked one is installed first. An interrupted
# installation may look complete to pip, so an incomplete .venv is recreated from scratch.
INSTALL = $(BIN)/python -m pip install --disable-pip-version-check --constraint $(LOCK)
$(READY): pyproject.toml $(LOCK)
	@if [ -e $(READY) ]; then \
		echo "pyproject.toml or $(LOCK) has changed: updating $(VENV)."; \
	else \
		$(choose_python); \
		echo "Setting up $(VENV) with $$($$python --version): this takes some minutes, once."; \
		$$python -m venv --clear $(VENV); \
	fi
	@rm -f $(READY) $(READY_DEV)
	$(INSTALL) --quiet setuptools
	$(INSTALL) --no-build-isolation --editable .
	@echo "$(CURDIR)" > $(READY)

$(READY_DEV): $(READY)
	@rm -f $(READY) $(READY_DEV)
	$(INSTALL) --no-build-isolation --editable '.[dev]'
	@echo "$(CURDIR)" > $(READY)
	@echo "$(CURDIR)" > $(READY_DEV)
