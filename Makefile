# The developer's interface; each target sets itself up in .venv (with uv where it is installed, else plain venv and pip).
PY := .venv/bin/python
STAMP := .venv/.installed

.PHONY: demo serve test coverage check bench faults clean

demo: $(STAMP)
	$(PY) -m inferq.demo

# A server with the small model, until Ctrl-C; its tasks are kept in ./data.
serve: $(STAMP) models
	exec $(PY) -m inferq serve --data-dir data

test: $(STAMP) models
	$(PY) -m pytest

coverage: $(STAMP) models
	$(PY) -m coverage run -m pytest -m "not faults"
	$(PY) -m coverage combine -q
	$(PY) -m coverage report

.PHONY: models
models: $(STAMP)
	$(PY) -m inferq models pull smollm2 -q >/dev/null

check: $(STAMP)
	$(PY) -m ruff check src tests benchmarks
	$(PY) -m ruff format -q --check src tests benchmarks
	$(PY) -m mypy
	.venv/bin/lint-imports

bench: $(STAMP)
	$(PY) benchmarks/run.py

faults: $(STAMP)
	INFERQ_FAULTS=long $(PY) -m pytest -m faults tests/faults -p no:randomly -s

$(STAMP): pyproject.toml
	@echo "setting up .venv (a minute or so, once)"
	@if command -v uv >/dev/null 2>&1; then \
		uv venv --allow-existing -q .venv && uv pip install -q -p .venv -e '.[local,server]' --group test --group check; \
	else \
		python3 -m venv .venv && .venv/bin/python -m pip install -q --upgrade 'pip>=25.1' && \
		.venv/bin/python -m pip install -q -e '.[local,server]' --group test --group check; \
	fi
	@touch $(STAMP)

clean:
	rm -rf .venv .bench build dist
