# make demo · make test · make reproduce · make oracle CASES=DIR · make bench · make lock
PYTHON ?= python3.11
BIN := .venv/bin
INSTALLED := .venv/.installed
SMALL := .regrow/small
# Tests spread over processes would otherwise start two busy-waiting threads each.
TEST_ENV := OMP_NUM_THREADS=1 OMP_WAIT_POLICY=PASSIVE

.PHONY: demo test reproduce oracle bench fuzz faults lint lock clean

demo: $(INSTALLED)  ## fine-tune, merge, quantise and judge a real model on this computer
	PATH="$(CURDIR)/$(BIN):$$PATH" dvc repro
	@echo
	@echo "The report: $(CURDIR)/data/eval/report.html"

test: $(INSTALLED) lint  ## everything CI checks
	$(TEST_ENV) $(BIN)/python -m pytest --numprocesses 2 --dist loadfile --durations 10

reproduce: $(INSTALLED)  ## run recipes/small, and again in a clean clone and otherwise; compare every digest
	rm -rf $(SMALL)
	$(BIN)/regrow new $(SMALL) --recipe small
	cd $(SMALL) && git add --all && git -c user.name=regrow -c user.email=regrow@localhost commit --quiet --message recipes/small
	cd $(SMALL) && PATH="$(CURDIR)/$(BIN):$$PATH" dvc repro > built.log 2>&1 || { cat built.log; exit 1; }
	cd $(SMALL) && $(CURDIR)/$(BIN)/regrow verify
	@echo
	cd $(SMALL) && $(CURDIR)/$(BIN)/regrow reproduce 2> reproduced.log || { cat reproduced.log; exit 1; }

oracle: $(INSTALLED)  ## compare our rows with those that Axolotl made of the cases in CASES
	$(BIN)/python -m tests.oracle $(CASES)

bench: $(INSTALLED)  ## measure us beside others; see benchmarks/
	$(BIN)/python -m pip install --quiet --disable-pip-version-check ".[bench]"
	$(BIN)/python benchmarks/tokenize.py
	$(BIN)/python benchmarks/dedupe.py
	$(BIN)/python benchmarks/pack.py
	$(BIN)/python benchmarks/train.py
	$(BIN)/python benchmarks/merge.py
	$(BIN)/python benchmarks/noop.py

fuzz: $(INSTALLED)  ## twenty thousand malformed inputs; docs/faults.md has what came of them
	$(TEST_ENV) $(BIN)/python -m tests.fuzz --cases 20000 --seed 7

faults: $(INSTALLED)  ## SIGKILL at ten moments of every stage; prints what survived
	PATH="$(CURDIR)/$(BIN):$$PATH" $(TEST_ENV) $(BIN)/python -m tests.faults.kill_matrix --moments 10

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

$(INSTALLED): requirements.lock pyproject.toml
	test -d .venv || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	touch $@

lock:  ## resolve pyproject.toml anew and pin the result
	rm -rf .venv-lock && $(PYTHON) -m venv .venv-lock
	.venv-lock/bin/python -m pip install --quiet --disable-pip-version-check setuptools ".[dev,gguf,int8]"
	( sed -n '/^#/p' requirements.lock; .venv-lock/bin/python -m pip freeze --all --exclude regrow --exclude pip | sed 's/+cpu$$//' ) > requirements.new
	mv requirements.new requirements.lock
	rm -rf .venv-lock

clean:
	rm -rf .venv .regrow data/raw data/tokenizer data/base data/benchmark data/others data/tokens data/dedupe data/packed data/trained data/merged data/quantized data/eval data/metrics
