# On a fresh machine with Python 3.11, run make demo and make test.
PYTHON ?= $(shell command -v python3.11 || command -v python3.12 || command -v python3)
VENV ?= .venv
BIN = $(VENV)/bin

.PHONY: demo test fuzz test-slow test-faults test-engines test-hf test-tpu-stack lint docs format clean

# Each target installs all that it needs in one go, with uv, which takes seconds where pip takes minutes. uv doesn't read pip's
# configuration: where it can't reach the index, pip does the same. Neither compiles modules, which Python does on import.
PIP = $(BIN)/python -m pip install --quiet --disable-pip-version-check
INSTALL = sh -c '$(BIN)/uv pip install --quiet --python $(BIN)/python --editable "$$0" || $(PIP) --no-compile --editable "$$0"'

$(BIN)/python:
	$(PYTHON) -m venv $(VENV) || { rm -f $@; exit 1; }
	$(PIP) uv

$(VENV)/installed: setup.py pyproject.toml | $(BIN)/python
	$(INSTALL) '.[train]'
	touch $@

$(VENV)/installed-test: setup.py pyproject.toml | $(BIN)/python
	$(INSTALL) '.[test]'
	touch $(VENV)/installed $@

$(VENV)/installed-docs: setup.py pyproject.toml | $(BIN)/python
	$(INSTALL) '.[test,docs]'
	touch $(VENV)/installed $(VENV)/installed-test $@

$(VENV)/installed-slow: $(VENV)/installed-test
	$(INSTALL) '.[test,dask]'
	touch $@

# beam-pyspark-runner requires a Beam version of 2023 but works with ours. It is installed outside the environment, which stays
# consistent.
$(VENV)/installed-spark: $(VENV)/installed-slow
	$(PIP) --no-deps --upgrade --target $(VENV)/spark \
		beam-pyspark-runner==0.0.3 pyspark==3.5.9 py4j==0.10.9.7
	touch $@

$(VENV)/installed-hf: $(VENV)/installed-test
	$(INSTALL) '.[test,hf]'
	touch $@

demo: $(VENV)/installed  ## run all commands on the demo corpus in the package
	$(BIN)/clozemill demo --overwrite

test: $(VENV)/installed-test  ## run the tests that CI runs
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder tests

$(VENV)/installed-fuzz: $(VENV)/installed-test
	$(INSTALL) '.[test,fuzz]'
	touch $@

SECONDS ?= 600
FUZZ ?= $(HOME)/.cache/clozemill-fuzz
fuzz: $(VENV)/installed-fuzz  ## fuzz one parser after another for SECONDS, and print a line for each; FUZZ keeps the corpus. ONLY=NAMES
	$(BIN)/python -m tests.faults.fuzz.run --seconds $(SECONDS) --corpus $(FUZZ) $(if $(ONLY),--only $(ONLY))

test-slow: $(VENV)/installed-slow  ## slow tests: real clusters, many kills, large documents
	$(BIN)/python -m pytest -m slow tests

# As root it also mounts small file systems and fills them. KILLS=7 DOCUMENTS=20000: a shorter run.
test-faults: $(VENV)/installed-test  ## fault tests: kills, full disks, flipped bits, decompression bombs, a million documents; takes an hour or two
	$(BIN)/python -m pytest -m "slow or not slow" -s tests/faults

test-engines: $(VENV)/installed-spark  ## test every engine that runs on one machine; Spark needs Java 17. CORPUS=FILE replaces the demo corpus
	CORPUS=$(CORPUS) PYTHONPATH=$(abspath $(VENV))/spark $(BIN)/python -m pytest -m slow -rs tests/test_engines.py

# Uses the newest torch and transformers that the extra allows, with their dependencies (triton).
test-hf: $(VENV)/installed-hf  ## test that transformers loads exports; other targets skip these tests if it isn't installed
	$(PIP) --upgrade --editable '.[test,hf]' torch transformers sentence-transformers
	$(BIN)/python -m pytest -m "slow or not slow" -rs tests/model/export/test_huggingface.py tests/model/export/test_hf_reference.py tests/model/export/test_hf_process.py \
		tests/model/test_backends.py tests/trainers/export/test_export.py tests/trainers/export/test_import_checkpoint.py

$(VENV)-tpu/installed: $(wildcard deploy/tpu/requirements*.txt)
	test -x $(VENV)-tpu/bin/python || $(PYTHON) -m venv $(VENV)-tpu || { rm -f $(VENV)-tpu/bin/python; exit 1; }
	$(VENV)-tpu/bin/python -m pip install --quiet --disable-pip-version-check -r deploy/tpu/requirements-test.txt
	$(VENV)-tpu/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --editable . \
		-r deploy/tpu/requirements-no-deps.txt
	touch $@

test-tpu-stack: $(VENV)-tpu/installed  ## run the trainer's tests with the versions of TPU VMs (2 GB), on this machine's CPU
	TPU_SKIP_MDS_QUERY=1 TF_CPP_MIN_LOG_LEVEL=3 $(VENV)-tpu/bin/python -m pytest tests/trainers  # there is no metadata server

lint: $(VENV)/installed-test  ## run ruff and mypy; shellcheck, hadolint, yamllint and schemas on deploy/
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/ruff format --check .
	$(BIN)/python -m pytest tests/deploy/test_linters.py

# Strict: fails for a dead link, a page outside the navigation or a name without a docstring. Material prints an advertisement.
docs: $(VENV)/installed-docs  ## build the pages of docs/ as a site in build/docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict --config-file docs/site/mkdocs.yml

format: $(VENV)/installed-test
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:
	rm -rf $(VENV) $(VENV)-tpu build *.egg-info demo-out .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
