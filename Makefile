# make demo and make test are all that a fresh machine with Python 3.11 needs.
PYTHON ?= $(shell command -v python3.11 || command -v python3.12 || command -v python3)
VENV ?= .venv
BIN = $(VENV)/bin

.PHONY: demo test fuzz test-slow test-faults test-engines test-hf test-tpu-stack lint docs format clean

$(VENV)/installed: setup.py pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)  # another Python over an environment breaks it
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[train]'
	touch $@

$(VENV)/installed-test: $(VENV)/installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[test]'
	touch $@

$(VENV)/installed-slow: $(VENV)/installed-test
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[test,dask]'
	touch $@

# beam-pyspark-runner asks for a Beam of 2023 and works with ours; beside the environment, which stays consistent.
$(VENV)/installed-spark: $(VENV)/installed-slow
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --upgrade --target $(VENV)/spark \
		beam-pyspark-runner==0.0.3 pyspark==3.5.9 py4j==0.10.9.7
	touch $@

$(VENV)/installed-hf: $(VENV)/installed-test
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[test,hf]'
	touch $@

$(VENV)/installed-docs: $(VENV)/installed-test
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[test,docs]'
	touch $@

demo: $(VENV)/installed  ## the whole line on the corpus that comes with the package
	$(BIN)/clozemill demo

test: $(VENV)/installed-test  ## what CI runs
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder tests

$(VENV)/installed-fuzz: $(VENV)/installed-test
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[test,fuzz]'
	touch $@

SECONDS ?= 600
FUZZ ?= $(HOME)/.cache/clozemill-fuzz
fuzz: $(VENV)/installed-fuzz  ## every parser for SECONDS one after another, a line each; the corpus stays in FUZZ. ONLY=NAMES
	$(BIN)/python -m tests.faults.fuzz.run --seconds $(SECONDS) --corpus $(FUZZ) $(if $(ONLY),--only $(ONLY))

test-slow: $(VENV)/installed-slow  ## real clusters, many kills, large documents
	$(BIN)/python -m pytest -m slow tests

# As root it also mounts small file systems, to fill them. KILLS=7 DOCUMENTS=20000: a shorter one.
test-faults: $(VENV)/installed-test  ## kills, full disks, altered bits, archives that explode, a million documents: an hour or two
	$(BIN)/python -m pytest -m "slow or not slow" -s tests/faults

test-engines: $(VENV)/installed-spark  ## every engine that one machine can have; Spark needs Java 17. CORPUS=FILE: not the demo's
	CORPUS=$(CORPUS) PYTHONPATH=$(abspath $(VENV))/spark $(BIN)/python -m pytest -m slow -rs tests/test_engines.py

# The newest torch and transformers that the extra allows, with what they bring (triton).
test-hf: $(VENV)/installed-hf  ## exports as transformers loads them; the other tests skip that where it isn't installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade --editable '.[test,hf]' torch transformers
	$(BIN)/python -m pytest -rs tests/model/export/test_huggingface.py tests/model/export/test_hf_reference.py tests/model/export/test_hf_process.py \
		tests/model/test_backends.py tests/trainers/export/test_export.py tests/trainers/export/test_import_checkpoint.py

$(VENV)-tpu/installed: $(wildcard deploy/tpu/requirements*.txt)
	test -x $(VENV)-tpu/bin/python || $(PYTHON) -m venv $(VENV)-tpu
	$(VENV)-tpu/bin/python -m pip install --quiet --disable-pip-version-check -r deploy/tpu/requirements-test.txt
	$(VENV)-tpu/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --editable . \
		-r deploy/tpu/requirements-no-deps.txt
	touch $@

test-tpu-stack: $(VENV)-tpu/installed  ## the trainer's tests on the versions that TPU VMs have (2 GB), on this machine's CPU
	TPU_SKIP_MDS_QUERY=1 TF_CPP_MIN_LOG_LEVEL=3 $(VENV)-tpu/bin/python -m pytest tests/trainers  # no metadata server to ask

lint: $(VENV)/installed-test  ## ruff; mypy; shellcheck, hadolint, yamllint and schemas on deploy/
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/ruff format --check .
	$(BIN)/python -m pytest tests/deploy/test_linters.py

# Strict: a dead link, a page outside the navigation or a name without a docstring fails. Material prints an advertisement.
docs: $(VENV)/installed-docs  ## the pages of docs/ as a site, in build/docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict --config-file docs/site/mkdocs.yml

format: $(VENV)/installed-test
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:
	rm -rf $(VENV) $(VENV)-tpu build *.egg-info demo-out .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
