# Both commands set everything up on a bare machine: a virtual environment here, the package, pinned dependencies.
VENV := .venv
PYTHON := python3
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: demo test lint check clean

demo: $(READY)
	$(BIN)/widevalley compare digits --out runs/digits --resume
	@echo "Open runs/digits/report.html"

test: lint
	$(BIN)/python -m pytest -n 2 --dist worksteal

lint: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[cli,rivals,tensorboard,test]"
	@touch $@
