# Two commands do everything: `make demo` and `make test`.

ARGS ?=
BENCH ?= $(filter-out %_rivals %_simulation,$(basename $(notdir $(wildcard bench/*.py))))
PYTHON := .venv/bin/python

.PHONY: help demo test check bench compat docs lock clean peers

help:
	@sed -n 's/^#: //p' $(MAKEFILE_LIST)

#: make demo [ARGS="--exit --json"]   the whole product on this machine, no key needed
demo:
	@scripts/venv demo
	@$(PYTHON) examples/demo.py $(ARGS)

#: make test [ARGS="-k name"]         format, types, import contract, every test
test:
	@scripts/venv dev
	@scripts/packages
	@scripts/check
	@scripts/tests $(ARGS)

#: make check                         format, types and import contract only
check:
	@scripts/venv dev
	@scripts/check

#: make bench [BENCH=gates]           how fast and how good, beside peers in the same run
bench:
	@scripts/venv dev
	@for name in $(BENCH); do $(PYTHON) bench/$$name.py $(ARGS) || exit 1; done

#: make compat [ARGS="--only NAME"]   official clients through the gateway; writes the page of what works
compat:
	@scripts/venv dev
	@PYTHONPATH=tests $(PYTHON) tests/compat/matrix.py $(ARGS)

#: make peers                         install LiteLLM and Portkey beside (under .peers), for bench/gateway.py
peers:
	@scripts/peers

#: make docs                          write the generated pages of docs/reference again
docs:
	@scripts/venv dev
	@$(PYTHON) -m cohort.surfaces.cli.reference > docs/reference/cli.md
	@$(PYTHON) -m cohort.surfaces.http.openapi > docs/reference/openapi.json
	@$(PYTHON) -m cohort.kernel.actions.reference > docs/reference/actions.md
	@$(PYTHON) -m cohort.kernel.sandbox.attacks_page > docs/reference/attack-list.md

#: make lock                          resolve requirements.lock afresh
lock:
	@scripts/lock

#: make clean                         remove what these commands built; never a data directory
clean:
	@rm -rf .venv build dist src/*.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache .grimp_cache
	@find src tests examples bench -name __pycache__ -type d -prune -exec rm -rf {} + 2>/dev/null || true
