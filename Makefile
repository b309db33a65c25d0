# `make serve` serves the bundled models, `make check` is for every change, `make test` checks everything.

PYTHON ?= python3
BIN := .venv/bin
HOST := $(or $(STN_HOST),127.0.0.1)
RAY_TESTS := tests/service/score/workers/test_cluster.py tests/test_ray_serve.py
PORT := $(or $(STN_PORT),8000)

.PHONY: help serve check test wheel-test test-kserve test-ray format clean

help:
	@echo "make serve   install what serving needs into .venv and serve models/ at http://$(HOST):$(PORT)"
	@echo "make check   install everything for development into .venv, then lint, check types and run the unit tests"
	@echo "make test    the same with all tests"
	@echo "make wheel-test  build the wheel, install it alone in a fresh environment and have it answer"
	@echo "make test-kserve  test with KServe's client too, in an environment of its own (450 MB)"
	@echo "make test-ray  test on a Ray cluster too, in an environment of its own (400 MB)"
	@echo "make format  format the code"
	@echo "make clean   remove .venv and caches"

serve: .venv/serve.stamp
	@echo "Serving $(or $(STN_MODELS),models) at http://$(HOST):$(PORT); Ctrl+C stops. Open it in a browser, or from another terminal here:"
	@echo "  curl -F image=@docs/pictures/digit.png http://$(HOST):$(PORT)/predict"
	@exec $(BIN)/stn-serve --host $(HOST) --port $(PORT) --log-format console

define LINT
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
endef

check: .venv/dev.stamp
	$(LINT)
	$(BIN)/pytest -n 2 --dist worksteal -m unit

test: .venv/dev.stamp
	$(LINT)
	$(BIN)/pytest -n 2 --dist worksteal -rs

wheel-test:
	@PYTHON=$(PYTHON) .ci/wheel-test

test-kserve: .venv/dev.stamp .venv/kserve.stamp
	$(BIN)/pytest tests/service/api/open_inference/test_kserve.py

test-ray: .venv/dev.stamp .venv/ray.stamp
	.venv/ray/bin/python -m pytest -rs $(RAY_TESTS)

format: .venv/dev.stamp
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

.venv/serve.stamp .venv/dev.stamp: .venv/%.stamp: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "error: Python 3.11 or newer is needed; say which with: make PYTHON=python3.11"; exit 1; }
	@echo "Installing the '$*' packages into .venv (once; a minute or two) ..."
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[$*]'
	@touch $@

# KServe's package wants an older protobuf than onnx is tested with, so it is not among the `dev` packages.
.venv/kserve.stamp:
	$(PYTHON) -m venv .venv/kserve
	.venv/kserve/bin/pip install --quiet --disable-pip-version-check kserve==0.21.0
	@touch $@

# Ray is large, so it is not among the `dev` packages. Its environment sees them.
.venv/ray.stamp: .venv/dev.stamp
	$(PYTHON) -m venv .venv/ray
	$(BIN)/python -c 'import sysconfig; p = sysconfig.get_path("purelib"); print(f"import site; site.addsitedir({p!r})")' \
		> "$$(.venv/ray/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/dev.pth"
	.venv/ray/bin/pip install --quiet --disable-pip-version-check --constraint constraints.txt 'ray[serve]==2.60.0'
	@touch $@

clean:
	rm -rf .venv build *.egg-info .mypy_cache .pytest_cache .ruff_cache
