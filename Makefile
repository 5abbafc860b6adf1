# The two commands of the README, and the words that CI uses.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: help demo test drills load lint types imports check lock docs dist clean

help: ## Show the targets
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 10

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "mulan: $(PYTHON) is too old; install Python 3.11 or newer, or run make PYTHON=/path/to/it"; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade "pip>=25"
	@echo "installing the locked environment (a few minutes the first time)"
	$(BIN)/python -m pip install --quiet -c constraints.txt -e ".[demo,dev]"
	@touch $(STAMP)

demo: $(STAMP) ## Build a catalogue, train, evaluate, index and serve it (EXIT=1 stops after the check queries)
	$(BIN)/mulan demo $(if $(EXIT),--exit)

test: check ## Everything CI runs: format, lint, types, import rules, tests
	$(BIN)/python -m pytest -n 2

drills: $(STAMP) ## Break things on purpose, and run the stack of real servers (minutes; CI runs it by night)
	$(BIN)/python -m pytest -m drill

MINUTES ?= 5
load: $(STAMP) ## Closed-loop load on the endpoint (MINUTES=30 for the long soak)
	$(BIN)/python -m pytest -m load --minutes $(MINUTES)

check: lint types imports

lint: $(STAMP)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: $(STAMP)
	$(BIN)/mypy

imports: $(STAMP)
	$(BIN)/lint-imports

lock: $(STAMP) ## Write constraints.txt from the environment as it is
	@{ sed -n '/^#/p' constraints.txt; $(BIN)/python -m pip freeze --exclude-editable | sed 's/+cpu//' | sort -f; } > constraints.tmp
	@mv constraints.tmp constraints.txt

docs: $(STAMP) ## The pages of docs/ as a site, into site/
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

dist: $(STAMP) ## Wheel, source archive and bill of materials (CycloneDX) into dist/
	$(BIN)/python -m build --outdir dist
	$(PYTHON) -m venv dist/.sbom && dist/.sbom/bin/python -m pip install --quiet cyclonedx-bom
	dist/.sbom/bin/cyclonedx-py environment --pyproject pyproject.toml --of JSON -o dist/mulan.cdx.json $(BIN)/python
	rm -rf dist/.sbom

clean: ## Remove the environment and all local state
	rm -rf $(VENV) .mulan
