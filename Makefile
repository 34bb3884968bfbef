# Every target sets up what it needs: Python 3.11 to 3.13 is enough for all but `test-real`
# and `demo LND=native|custom`, which build a real LND with Go, `test-helm`, which builds Helm and a
# Kubernetes with it as well, and `test-ldk`, `test-wake`, `test-settle` and `demo PAY=1`, which build LDK
# peers with Rust.
PYTHON ?= python3
# A payment needs a real LND.
LND ?= $(if $(filter-out 0,$(PAY)),native,simulated)
PICTURE ?= docs/demo.svg
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: test test-real test-ldk test-wake test-settle test-helm test-faults fuzz bench programs walk lint lint-rust demo picture picture-top settings chart protos clean

test: lint
	$(BIN)/pytest -n 4 --dist worksteal -m "not real and not ldk and not wake and not settle and not helm and not faults and not slow"

# Built before pytest, whose time limit is for tests.
test-real: $(READY)
	$(BIN)/python -m tests.lnd.build
	$(BIN)/python -m tests.monitoring.build
	$(BIN)/pytest -m "real or slow"

test-ldk: lint-rust
	$(BIN)/python -m tests.lnd.build
	$(BIN)/python -m tests.ldk.build
	$(BIN)/pytest -m ldk

test-wake: $(READY)
	$(BIN)/python -m tests.lnd.build
	$(BIN)/python -m tests.ldk.build
	$(BIN)/pytest -m wake

test-settle: $(READY)
	$(BIN)/python -m tests.lnd.build
	$(BIN)/python -m tests.ldk.build
	$(BIN)/pytest -m settle

test-helm: $(READY)
	$(BIN)/python -m tests.lnd.build
	$(BIN)/python -m tests.helm.build
	$(BIN)/pytest -m helm

# What was promised, while what it stands on breaks. ROUNDS= says how often each fault comes back.
test-faults: $(READY)
	$(BIN)/python -m tests.lnd.build
	$(BIN)/python -m tests.harness.debian_redis
	$(BIN)/pytest -n 2 --dist worksteal -m faults $(if $(ROUNDS),--rounds $(ROUNDS))

# Every decoder, fed by a coverage-guided fuzzer for SECONDS= each.
fuzz: $(READY)
	$(BIN)/python -m tests.fuzz $(if $(SECONDS),--seconds $(SECONDS))

# All programs of others that the targets above build and keep.
programs: $(READY)
	$(BIN)/python -m tests.lnd.build
	$(BIN)/python -m tests.harness.debian_redis
	$(BIN)/python -m tests.monitoring.build
	$(BIN)/python -m tests.ldk.build
	$(BIN)/python -m tests.helm.build

# Every benchmark, or those that WHAT= names; OUT= names a file for the figures as JSON. Needs Go and Rust.
bench: $(READY)
	$(BIN)/python -m tests.bench $(WHAT) $(if $(OUT),--out $(OUT))

# README's own commands, typed on a bare machine with a real LND 0.21: part of test-real, here with all
# that a stranger would see.
walk: $(READY)
	$(BIN)/python -m tests.lnd.build
	$(BIN)/pytest -q -s -m real tests/walk

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

lint-rust: $(READY)
	$(BIN)/python -m tests.ldk.build lint

demo: $(READY)
	$(BIN)/python -m tests.demo --lnd $(LND)$(if $(filter-out 0,$(PAY)), --pay)

# A run of the demo, as the README shows it.
picture: $(READY)
	$(BIN)/python -m tests.demo.picture $(PICTURE) --prompt "make demo LND=$(LND)$(if $(PAY), PAY=$(PAY))" \
	  -- $(MAKE) --silent --no-print-directory demo LND=$(LND) $(if $(PAY),PAY=$(PAY))

# A frame of `sidecar top`, as the README shows it.
picture-top: $(READY)
	$(BIN)/python -m tests.demo.top_picture docs/top.svg

# The README's table of settings.
settings: $(READY)
	$(BIN)/python -m tests.settings_table

# The chart's README, and what its schema repeats of values.yaml.
chart: $(READY)
	$(BIN)/python -m tests.helm.build
	$(BIN)/python -m tests.helm.values_schema

protos: $(READY)
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python protos/generate.py

# The versions are those of constraints.txt; without build isolation that holds for setuptools too.
$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt setuptools
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt --no-build-isolation -e '.[dev]'
	touch $@

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
