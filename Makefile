# Two commands: `make demo` runs the whole journey, `make test` runs every test. Both set up .venv by themselves, with the versions that were
# tested (constraints/). `make newest` and `make oldest` run the tests on the newest and on the lowest versions that pyproject.toml allows.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
EXTRAS := sim,dev
# py311 and so on; a Python without a file of its own gets the newest allowed versions
TAG = $(shell $(PYTHON) -c 'import sys; print("py%d%d" % sys.version_info[:2])')
TESTED = $(wildcard constraints/$(TAG).txt)
PIP := -m pip install --quiet --disable-pip-version-check
# two processes, each with one thread: the suite in half the time; whole files, since the tests of a file share what they train
PYTEST := -m pytest -n 2 --dist loadfile

.PHONY: setup demo test check docs wheel lock newest oldest chaos lerobot clean

setup: $(READY)

$(READY): pyproject.toml $(wildcard constraints/*.txt)
	$(call environment,$(VENV),$(addprefix --constraint ,$(TESTED)))
	@touch $@

define environment
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "milepost needs Python 3.11 or newer; try: make $(MAKECMDGOALS) PYTHON=python3.12"; exit 1; }
	@test -x $(1)/bin/python || $(PYTHON) -m venv $(1) || \
		{ echo "cannot make a virtual environment; on Debian: apt-get install python3-venv"; exit 1; }
	$(1)/bin/python $(PIP) $(2) --editable '.[$(EXTRAS)]'
endef

demo: $(READY)
	$(BIN)/milepost demo

test: $(READY)
	$(BIN)/python $(PYTEST)

check: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python $(PYTEST)

wheel: $(READY)
	$(BIN)/python -m build --wheel

# The site, into site/: nothing in it asks the network. A broken link or a page that is not there ends it.
docs: $(READY)
	$(BIN)/python tools/reference.py docs/reference
	$(BIN)/zensical build --clean --strict

# Refreshes constraints/: for every Python found here the newest versions that pyproject.toml allows, and its lowest bounds. Then `make test`.
lock: $(READY)
	$(BIN)/python tools/lock.py

# The attacks of the suite, many more of each: mutated files, kills, races, hostile servers. CHAOS=1 is what `make test` has.
CHAOS ?= 30
chaos: $(READY)
	MILEPOST_CHAOS=$(CHAOS) $(BIN)/python -m pytest tests/chaos tests/vlm/test_hostile_servers.py

# The plugins in LeRobot itself (docs/lerobot.md). LEROBOT: a Python that has LeRobot, milepost, plugins/lerobot and plugins/lerobot_strategy.
LEROBOT ?= python3.12
lerobot:
	$(LEROBOT) plugins/lerobot/checks/run.py
	$(LEROBOT) plugins/lerobot_strategy/check.py "$$(mktemp -d)"

newest:
	$(call environment,.venv-newest,--upgrade --upgrade-strategy eager)
	.venv-newest/bin/python -m pip list
	.venv-newest/bin/python $(PYTEST)

oldest:
	$(call environment,.venv-oldest,--constraint constraints/oldest.txt)
	.venv-oldest/bin/python -m pip list
	.venv-oldest/bin/python $(PYTEST)

clean:
	rm -rf $(VENV) .venv-newest .venv-oldest build dist site docs/reference .cache .pytest_cache .mypy_cache .ruff_cache .hypothesis
