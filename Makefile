# `make predict` and `make test` do all the set-up they need, on Linux with Python 3.11 and make.

PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/installed
EVALUATION := .evaluation/installed
CLUSTER := .cluster/installed
TORCH_INDEX := https://download.pytorch.org/whl/cpu

LOCKED_TORCH = { $(BIN)/pip install -qq --no-deps -r requirements/torch.txt 2>/dev/null \
	|| $(BIN)/pip install -q --no-deps --index-url $(TORCH_INDEX) -r requirements/torch.txt; }
LOCKED = { $(BIN)/uv pip install -q --python $(BIN)/python --compile-bytecode --no-deps --only-binary :all: -r requirements/local.txt \
	|| $(BIN)/pip install -qq --no-deps --only-binary :all: -r requirements/local.txt; }

prompt ?= What is the capital of France? Answer in one sentence.
export PROMPT_AS_TYPED := $(value prompt)

.PHONY: help install predict serve up cluster test test-fast test-long test-clients test-cluster test-evaluation test-image check format bench \
	bench-cluster bench-masks bench-schemas bench-weights evaluate soak lock audit sbom clean

help: ## Show this list
	@grep -hE '^[a-z-]+:.*##' Makefile | sed -E 's/^([a-z-]+):.*## /  make \1\t/' | expand -t 24

install: $(INSTALLED) ## Make .venv with the locked local environment

predict: $(INSTALLED) ## Stream one answer: make predict prompt="..."
	@$(BIN)/python -m hermes predict -i "prompt=$$PROMPT_AS_TYPED"

serve: $(INSTALLED) ## Run the Cog server on port 5000 until Ctrl-C
	@$(BIN)/python -m hermes serve

up: $(INSTALLED) ## Run the Cog server and the gateway: a page to chat, Replicate's and OpenAI's APIs
	@$(BIN)/python -m hermes up

replicas ?= 2
cluster: $(INSTALLED) $(CLUSTER) ## Run the gateway before replicas on Ray Serve: make cluster replicas=2
	@$(BIN)/python -m hermes cluster --replicas $(replicas)

# Tests that share a server run in one process, beside the others.
TESTS := $(BIN)/python -m pytest -n 3 --dist loadgroup

test: $(INSTALLED) ## Run the tests, 16 minutes on 2 cores
	$(TESTS)

test-fast: $(INSTALLED) ## Run the tests that need no server and no engine, a minute
	$(BIN)/python -m pytest -n 2 --ignore tests/integration

test-long: $(INSTALLED) $(EVALUATION) $(CLUSTER) ## Run the tests with all depths, 20 times the fuzz and the soak, about an hour
	FUZZ_EXAMPLES=20 $(TESTS) -n 2 -m "not cluster" -o timeout=3600
	$(BIN)/python -m pytest tests/cluster -m cluster
	$(BIN)/python -m tests.soak

test-clients: $(INSTALLED) ## Run clients that are not in the lock: docs/clients.md, and loops of agents; 10 minutes
	$(BIN)/python -m pytest tests/integration tests/clients -m clients

test-cluster: $(INSTALLED) $(CLUSTER) ## Run replicas on Ray Serve, kill some, and let their number grow and shrink, 5 minutes
	$(BIN)/python -m pytest tests/cluster -m cluster

profile ?= local
test-image: $(INSTALLED) ## Build an image with Docker, run it and remove it: make test-image profile=production
	$(BIN)/python -m pytest tests/image/test_$(profile).py -m image -o timeout=1200

test-evaluation: $(INSTALLED) $(EVALUATION) ## Run lm-eval and BFCL's checker on questions of our own, a minute
	$(BIN)/python -m pytest tests/evaluation -m evaluation

check: $(INSTALLED) ## Check format, lint, types and which way imports point
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

format: $(INSTALLED) ## Format, and mend what lint can mend
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(INSTALLED) ## Compare with raw vLLM and vLLM's own server, side by side
	$(BIN)/python -m bench.serving

bench-cluster: $(INSTALLED) $(CLUSTER) ## Compare one and two replicas on Ray with one Cog server, side by side
	$(BIN)/python -m bench.cluster

bench-masks: $(INSTALLED) ## Measure what a grammar costs for each token, in two vocabularies: make bench-masks schemas=PATH
	$(BIN)/python -m bench.masks $(schemas)

bench-weights: $(INSTALLED) ## Compare fetching weights with hf download and curl | tar x, and ways to start, side by side
	$(BIN)/python -m bench.weights
	$(BIN)/python -m bench.starts

bench-schemas: $(INSTALLED) ## Compare which JSON schemas are taken with vLLM's own ways: make bench-schemas schemas=PATH
	$(BIN)/python -m bench.schemas $(schemas)

sample ?= 25
evaluate: $(INSTALLED) $(EVALUATION) ## Measure function calling on a sample of BFCL, and answer two-turn questions
	$(BIN)/python -m evaluation functions --sample $(sample)
	$(BIN)/python -m evaluation chat

minutes ?= 10
soak: $(INSTALLED) ## Let many clients, good and bad, at a server and a gateway: make soak minutes=10
	$(BIN)/python -m tests.soak --minutes $(minutes)

# The image has the versions that the tests run with. 22.04 and newer have the glibc of manylinux_2_35.
lock: $(INSTALLED) ## Resolve what the local environment and the image install again
	$(BIN)/uv pip compile requirements/local.in --override requirements/leave-out.txt --python-version 3.11 \
		--no-annotate --custom-compile-command "make lock" --output-file requirements/local.txt
	$(BIN)/uv pip compile requirements/image.in --constraint requirements/local.txt --python-version 3.12 \
		--python-platform x86_64-manylinux_2_35 \
		--no-annotate --custom-compile-command "make lock" --output-file requirements.txt

	$(BIN)/uv pip compile pyproject.toml requirements/gateway.in --constraint requirements/local.txt --python-version 3.11 \
		--no-annotate --custom-compile-command "make lock" --output-file requirements/gateway.txt

# What is there already is left out: in the local environment, and in the image of `cog build`.
	for part in "evaluation requirements/local.txt" "cluster requirements.txt"; do set -- $$part; \
		$(BIN)/uv pip compile requirements/$$1.in --constraint requirements/local.txt \
			--override requirements/leave-out.txt --python-version 3.11 --no-annotate --no-header -q \
			| grep -vxFf $$2 > requirements/$$1.txt; done

audit: $(INSTALLED) ## Look for known vulnerabilities of what is pinned (asks the package index)
	@$(BIN)/python requirements/audit.py requirements.txt requirements/local.txt

sbom: $(INSTALLED) ## Write the bill of materials, requirements/sbom.cdx.json
	$(BIN)/python requirements/sbom.py

clean: ## Remove the environment and what it made; weights stay
	rm -rf .venv .evaluation .cluster .image .cog .pytest_cache .mypy_cache .ruff_cache .hypothesis

# The lock is complete, so nothing is resolved here. uv takes a sixth of pip's time; where it reaches no index, pip may.
# PyTorch's index is asked only when no other has the CPU build.
$(INSTALLED): requirements/local.txt requirements/torch.txt
	@echo "making .venv with $$($(PYTHON) --version)" >&2
	@$(PYTHON) -m venv .venv
	@$(BIN)/pip install -qq "$$(grep ^uv== requirements/local.txt)"
	@echo "installing $$(grep -c == requirements/local.txt) locked packages, vLLM and PyTorch among them; this takes a minute" >&2
	@$(LOCKED_TORCH) & $(LOCKED) && wait $$!
	@touch $(INSTALLED)

# Beside the local environment, in folders of their own. BFCL's wheel asks for old versions of what it does not need here.
$(EVALUATION): requirements/evaluation.txt requirements/bfcl.txt | $(INSTALLED)
	@echo "installing lm-eval and bfcl-eval into .evaluation" >&2
	@rm -rf .evaluation
	@$(BIN)/uv pip install -q --python $(BIN)/python --target .evaluation/lm-eval --no-deps -r requirements/evaluation.txt
	@$(BIN)/uv pip install -q --python $(BIN)/python --target .evaluation/bfcl --no-deps -r requirements/bfcl.txt
	@touch $(EVALUATION)

$(CLUSTER): requirements/cluster.txt | $(INSTALLED)
	@echo "installing Ray into .cluster" >&2
	@rm -rf .cluster
	@grep -vxFf requirements/local.txt requirements/cluster.txt \
		| $(BIN)/uv pip install -q --python $(BIN)/python --target .cluster --no-deps -r -
	@touch $(CLUSTER)
