# Every target can be run again at any point. `make` alone lists them.
.DEFAULT_GOAL := help
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
MAKEFLAGS += --no-builtin-rules
.DELETE_ON_ERROR:

export PATH := $(CURDIR)/.venv/bin:$(PATH)
# The checkout is reachable as dataops.dagster_gce through a symlink, so FQCNs mean these very files.
export ANSIBLE_COLLECTIONS_PATH := $(CURDIR)/.collections
LINK := .collections/ansible_collections/dataops/dagster_gce

.PHONY: help
help: ## list the targets
	@awk -F':.*## ' '/^[a-z][a-z-]*:.*## /{printf "  make %-14s %s\n", $$1, $$2}' Makefile

# --- the demo ---------------------------------------------------------------------------------------------------------

.PHONY: env controller lab demo demo-down tunnel deploy rollback status
env: $(LINK) ## make the virtual environment from the lock
	@lab/env.sh test

controller: $(LINK) ## make it with what runs the playbooks only
	@lab/env.sh controller

lab: $(LINK) ## make it with what the demo needs
	@lab/env.sh lab

demo: lab ## bring a real Dagster up on a lab machine on this computer; WORKERS=2 takes more machines
	@python -m lab demo

demo-down: lab ## remove the demo: containers, volumes, networks, registry, keys
	@python -m lab down --engine --google

tunnel: ## forward http://127.0.0.1:3000 to the demo's webserver
	@python -m lab tunnel dagster-lab 3000 3000

deploy: ## ship dagster_core/ to the demo
	@ansible-playbook -i inventory/lab deploy_core.yml

rollback: ## take the demo's last deploy back
	@ansible-playbook -i inventory/lab playbooks/rollback_core.yml

status: ## what serves, what runs, how it is
	@ansible-playbook -i inventory/lab playbooks/status.yml

# --- to develop on ----------------------------------------------------------------------------------------------------

DEV := docker compose -f docker-compose-local.yml --env-file .env.dev

.PHONY: dev dev-logs dev-down dev-sqlite local-stack
dev: lab ## the stack on this computer; an edit of dagster_core/ is served at once (docs/development.md)
	@python -m lab up
	@$(DEV) up --build --detach --wait
	@. ./.env.dev; echo "http://127.0.0.1:$$DAGSTER_WEBSERVER_PORT; debugger: attach to 127.0.0.1:$$DAGSTER_DEBUG_PORT; make dev-logs, make dev-down"

dev-logs: ## follow what the user code says
	@$(DEV) logs --follow --tail 50 docker_dagster_core

dev-down: ## stop it; DATA=1 removes its database and files too
	@$(DEV) down $(if $(DATA),--volumes)

dev-sqlite: env ## the same code without Docker: `dagster dev` on SQLite, http://127.0.0.1:3002
	@mkdir -p build/dev
	@DAGSTER_HOME=$(CURDIR)/build/dev DAGSTER_STORAGE_DIR=$(CURDIR)/build/dev/storage dagster dev -m dagster_core -h 127.0.0.1 -p 3002

local-stack: $(LINK) ## write docker-compose-local.yml from the roles
	@ansible-playbook -i localhost, files/local/generate.yml

# --- everything that needs Docker ---------------------------------------------------------------------------------------

.PHONY: test test-faults test-gcp bench
test: env ## all tests, from a fresh clone
	@tests/tools/run_tests $(CHECKS)

# One scenario: make molecule-docker_engine; one step of it: make molecule-docker_engine STEP=converge
molecule-%: env
	@MOLECULE_GLOB='molecule/*/molecule.yml' molecule $(or $(STEP),test) -s $*

# Some five hours on two processors. What it measures goes into docs/reliability.md with `python -m tests.e2e.faults.table`.
test-faults: env ## the long form of the end-to-end tests: more faults, more often, and what is rare
	@status=0; for tests in tests/browser $(addprefix tests/e2e/, redeploy operations upgrade faults swarm \
			test_bad_input.py test_database_outside.py test_gcp_lane.py test_google_vm.py test_launchers.py); do \
		E2E_LONG=1 python -m pytest --quiet $$tests || status=1; \
	done; exit $$status

# Makes and deletes things that cost money, in the project that GCP_TEST_PROJECT names; see CONTRIBUTING.md.
test-gcp: env ## the tests of provisioning in a real project at Google; DRY=1 only says what they would do
	@python -m tests.gcp $(if $(DRY),--dry-run)

bench: env ## the benchmark table
	@python -m tests.bench.run

# --- everything that does not -------------------------------------------------------------------------------------------

# What `make check` runs; each is a target of its own (`make lint-ansible`). The slow ones come first, for `-j`.
CHECKS := unit unit-google lint-ansible lint-types lint-docs build lint-syntax lint-python lint-yaml lint-docker lint-shell lint-workflows lint-changelog

.PHONY: check $(CHECKS) docs-tables docs-diagrams site lock format clean
check: env ## lint and unit tests, no Docker; four minutes on two processors
	@tests/tools/run_checks $(CHECKS)

lint-ansible: $(LINK) ## ansible-lint, production profile
	@ansible-lint --offline -q --nocolor --format pep8

lint-yaml: ## yamllint
	@yamllint --strict .

lint-python: ## ruff, rules and format
	@ruff check --quiet --output-format concise .
	@ruff format --check --quiet --output-format concise .

lint-types: ## mypy
	@tests/tools/lint_types

lint-docker: ## hadolint on the Dockerfiles
	@tests/tools/lint_docker

lint-shell: ## shellcheck
	@tests/tools/lint_shell

lint-workflows: ## actionlint, zizmor and schemas on what GitHub and Renovate read
	@tests/tools/lint_workflows

lint-changelog: ## antsibull-changelog lint
	@antsibull-changelog lint

lint-syntax: $(LINK) ## ansible-playbook --syntax-check of every playbook
	@tests/tools/lint_syntax

lint-docs: $(LINK) ## ansible-doc renders every plugin and role; tables and diagrams are up to date
	@tests/tools/lint_docs

unit: $(LINK) ## unit tests, the user code's own among them
	@tests/tools/unit -m 'not google'

unit-google: $(LINK) ## unit tests that have to do with Google's API
	@tests/tools/unit -m google

build: ## the collection's tarball into build/, and a look at what is in it
	@tests/tools/build

audit: ## known vulnerabilities of the locked Python packages; needs the network
	@tests/tools/audit

docs-tables: $(LINK) ## write the option tables from the argument specs
	@python docs/_generate/option_tables.py

docs-diagrams: $(LINK) ## draw docs/images/*.svg from templates and code, and count what an environment has at Google
	@python docs/_generate/diagrams.py
	@python docs/_generate/costs.py --write

# The web site's tools are in no test's way, and no test in theirs: a folder of their own.
SITE_TOOLS := build/site-tools
site: env ## the documentation as a web site into build/site/
	@[ $(SITE_TOOLS)/.stamp -nt requirements/docs.txt ] || { rm -rf $(SITE_TOOLS); \
	  python -m pip install -qq --disable-pip-version-check --require-hashes --target $(SITE_TOOLS) -r requirements/docs.txt; \
	  touch $(SITE_TOOLS)/.stamp; }
	@python docs/_generate/site.py build/site-pages
	@NO_MKDOCS_2_WARNING=1 PYTHONPATH=$(SITE_TOOLS) python -m mkdocs build --quiet --strict

lock: ## hashed locks from requirements/*.in (needs uv on PATH)
	@tests/tools/lock

format: ## ruff format and the fixes that are safe
	@ruff format --quiet . && ruff check --quiet --fix .

clean: ## remove build/ and the tools' caches
	@rm -rf build .ruff_cache .mypy_cache .pytest_cache .cache

$(LINK):
	@mkdir -p $(@D) && ln -sfn ../../.. $@
