.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
WM := $(BIN)/wm

.PHONY: help install demo test test-slow test-fire test-fuzz test-cluster test-cluster-smoke lint types bench bench-feed bench-scale \
    bench-exchange bench-board docs site manifests dev-s3 lock build-images push-images \
    pin-base sbom release pretrained clean

help:  ## this list
	@grep -E '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 16

install: $(BIN)/.installed  ## a virtual environment in .venv with everything the laptop needs

$(BIN)/.installed: images/requirements.laptop.txt pyproject.toml
	@$(PYTHON) images/platforms.py
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --require-hashes -r images/requirements.laptop.txt
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	touch $@

demo: install  ## from nothing to a car that drives: the run `demo` in ./runs
	$(WM) run --preset demo --run demo

test: install  ## every test that needs nothing but this machine
	$(BIN)/python -m pytest -n 2 --dist loadfile

test-slow: install  ## kill and repeat whole runs: minutes
	$(BIN)/python -m pytest -n 0 -m slow --ignore tests/test_fire.py

test-fire: install  ## whole runs on a bucket whose calls fail, and whose runs are killed: half an hour
	$(BIN)/python -m pytest -n 0 -m slow -s tests/test_fire.py

test-fuzz: install  ## damaged and hostile stores, at random, for some minutes (SECONDS=240 SEED=…)
	$(BIN)/python tests/fuzz.py $(or $(SECONDS),240) $(SEED)

test-cluster: install  ## on the cluster that KUBECONFIG names; tests/cluster/conftest.py says what it needs
	$(BIN)/python -m pytest -n 0 -m 'cluster and not lab' tests/cluster

test-cluster-smoke: install  ## the short part of it
	$(BIN)/python -m pytest -n 0 -m 'cluster and smoke' tests/cluster

lint: install  ## ruff, and imports that point one way
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

types: install  ## mypy, strict
	$(BIN)/mypy

bench: install  ## the rate of each path on one core, beside the plain way's and its limit: a table, and bench.json
	taskset -c 0 $(BIN)/python bench/speed.py --json bench.json

bench-feed: install  ## does feeding keep up with training, in bounded memory? (six minutes)
	$(BIN)/python bench/feed.py

bench-scale: install  ## the evolution on 16 to 1,024 simulated workers: time, failures, requests, dollars
	$(BIN)/python bench/scale.py

bench-exchange: install  ## what 64 workers ask of a real S3 server, and how long they wait for it
	PYTHONPATH=tests $(BIN)/python bench/exchange.py

bench-board: install  ## the board of 50 runs in a folder and on a real S3 server: time to the first paint, requests
	PYTHONPATH=tests $(BIN)/python bench/board.py

docs: install  ## write docs/commands.md from the commands' own help
	$(BIN)/python -m wm.documentation > docs/commands.md

site: install  ## write the pages as a site into ./site; a broken link stops it
	$(BIN)/python -m sphinx -q -W --keep-going -E docs site

manifests: install  ## write k8s/jobs/*.yaml, the Jobs that `wm submit` sends
	$(BIN)/python -m wm.examples k8s/jobs

S3_IMAGE ?= wm-s3:dev
DEV_S3 := k8s/overlays/dev-s3

dev-s3: $(DEV_S3)/credentials.env  ## k8s/base and a small S3 server into the cluster (S3_IMAGE=… if it pulls from a registry)
	kubectl kustomize $(DEV_S3) | sed 's|image: wm-s3:dev|image: $(S3_IMAGE)|' | kubectl apply -f -
	kubectl -n wm rollout status deployment/s3 --timeout=120s \
	    || { kubectl -n wm get events --field-selector type=Warning; exit 1; }

$(DEV_S3)/credentials.env:
	umask 077 && $(PYTHON) -c 'import secrets; print(f"AWS_ACCESS_KEY_ID={secrets.token_hex(10)}"); \
	    print(f"AWS_SECRET_ACCESS_KEY={secrets.token_urlsafe(30)}")' > $@

LOCK = uv pip compile --quiet --python-version 3.11 --generate-hashes --no-emit-index-url --no-emit-find-links --no-header
IMAGE_LOCK = $(LOCK) --python-platform x86_64-manylinux_2_28 --no-annotate --constraint images/requirements.laptop.txt

lock: install  ## renew the lock files (needs uv); the images' follow the laptop's
	$(LOCK) --universal --extra play --extra train --extra report --extra board --extra tensorboard --extra mp4 --extra export --extra s3 --extra kubernetes --extra dev --extra docs --extra sbom \
	    --output-file images/requirements.laptop.txt pyproject.toml images/build.in
	$(IMAGE_LOCK) --extra play --extra report --extra s3 --extra kubernetes \
	    --output-file images/requirements.cpu.txt pyproject.toml
	$(IMAGE_LOCK) --extra gpu --extra s3 --no-emit-package libclang --output-file images/requirements.gpu-cuda.txt pyproject.toml
	$(IMAGE_LOCK) --extra train --extra s3 --no-emit-package libclang --output-file images/requirements.gpu-cpu.txt pyproject.toml
	$(IMAGE_LOCK) --output-file images/requirements.build.txt images/build.in
	$(IMAGE_LOCK) --output-file images/requirements.s3.txt images/s3.in

# TENSORFLOW=cpu: wm-gpu without CUDA. IMAGES=cpu: only that one. TOOL: docker, podman or buildah. PLAIN_HTTP=1: no TLS.
# BASE=HOST/IMAGE, PIP_INDEX_URL=…, PLATFORM=…: where a build gets things, and what for; HTTP_PROXY and its kin are passed on.
TENSORFLOW ?= cuda
IMAGES ?= cpu gpu
IMAGE_OPTIONS = --images '$(IMAGES)' --tensorflow $(TENSORFLOW) --tool '$(TOOL)' --base '$(BASE)' $(if $(PLAIN_HTTP),--plain-http)
BUILD_OPTIONS = --index '$(PIP_INDEX_URL)' $(if $(PLATFORM),--platform '$(PLATFORM)')

build-images:  ## build and check wm-cpu and wm-gpu (TENSORFLOW=cpu: no CUDA)
	@$(PYTHON) images/build.py build $(IMAGE_OPTIONS) $(BUILD_OPTIONS)

pin-base:  ## name the images' base by the digest that it has now, in images/base.txt
	@$(PYTHON) images/build.py pin $(IMAGE_OPTIONS)

sbom: install  ## what is in each image, as CycloneDX, into ./sbom; with Debian's packages where the image is at hand
	@$(BIN)/python images/sbom.py sbom --tensorflow $(TENSORFLOW) --tool '$(TOOL)'

release: install  ## check a tagged commit, and write wheel, images, bills of materials and notes into ./dist; publishes nothing
	@$(BIN)/python images/release.py dist $(IMAGE_OPTIONS) $(BUILD_OPTIONS)

push-images:  ## push them to REGISTRY=host:port/path; writes images.toml
	@$(PYTHON) images/build.py push $(IMAGE_OPTIONS) --registry '$(REGISTRY)'

pretrained: install  ## pack a scored run (STORE=… RUN=… ITERATION=1) as the trained model in the package
	$(BIN)/python -m wm.pretrained '$(STORE)' '$(RUN)' $(or $(ITERATION),1)

clean:  ## remove the virtual environment and caches; runs stay
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .import_linter_cache
